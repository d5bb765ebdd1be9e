"""csrc/cpu/scalar.h: the 16-bit types convert as torch's do, every bit pattern and every kind of rounding."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest
import torch

from python_tests.build import ROOT

SOURCE = """
#include "cpu/scalar.h"
template <typename T> void widen(const uint16_t* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) { T value; value.bits = x[i]; y[i] = static_cast<float>(value); }
}
template <typename T> void narrow(const float* x, uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = T(x[i]).bits;
}
extern "C" {
void widen_bfloat16(const uint16_t* x, float* y, int64_t n) { widen<igf::bfloat16>(x, y, n); }
void widen_float16(const uint16_t* x, float* y, int64_t n) { widen<igf::half>(x, y, n); }
void narrow_bfloat16(const float* x, uint16_t* y, int64_t n) { narrow<igf::bfloat16>(x, y, n); }
void narrow_float16(const float* x, uint16_t* y, int64_t n) { narrow<igf::half>(x, y, n); }
}
"""
DTYPES = (torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("scalar")
    (folder / "scalar.cpp").write_text(SOURCE)
    compiler = [os.environ.get("CXX") or "c++", "-std=c++20", "-O2", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}"]
    subprocess.run([*compiler, "scalar.cpp", "-o", "scalar.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(Path(folder) / "scalar.so"))


def convert(library: ctypes.CDLL, name: str, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    getattr(library, name)(
        ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), ctypes.c_int64(x.numel())
    )
    return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_bit_pattern_widens(library: ctypes.CDLL, dtype: torch.dtype) -> None:
    patterns = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    wide = convert(library, f"widen_{str(dtype)[6:]}", patterns, torch.empty(65536))
    expected = patterns.view(dtype).float()
    assert torch.equal(wide.isnan(), expected.isnan())
    assert torch.equal(wide[~wide.isnan()], expected[~expected.isnan()])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_narrowing_rounds_to_nearest_even(library: ctypes.CDLL, dtype: torch.dtype) -> None:
    """All 16-bit numbers, all midpoints between neighbours, their float32 neighbours, and random bits."""
    numbers = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype).float()
    numbers = numbers[numbers.isfinite()].sort().values
    midpoints = (numbers[1:].double() + numbers[:-1].double()).mul(0.5).float()
    up, down = torch.tensor([float("inf")]), torch.tensor([-float("inf")])
    edges = torch.tensor([65519.99, 65520.0, 3.4e38, -3.4e38])
    random = torch.randint(-(2**31), 2**31, (1 << 18,), generator=torch.Generator().manual_seed(0))
    x = torch.cat([
        numbers, midpoints, midpoints.nextafter(up), midpoints.nextafter(down),
        random.to(torch.int32).view(torch.float32), edges, up, down,
    ])
    narrow = convert(library, f"narrow_{str(dtype)[6:]}", x, torch.empty(x.numel(), dtype=torch.int16)).view(dtype)
    expected = x.to(dtype)
    assert torch.equal(narrow.isnan(), expected.isnan())
    keep = ~expected.isnan()
    assert torch.equal(narrow[keep].view(torch.int16), expected[keep].view(torch.int16))  # by bits: -0 is not 0
