"""The bounds that csrc/device/math.h promises, swept over the floats with and without fused multiply-add."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

HEADER_FOLDER = Path(__file__).resolve().parents[2] / "csrc" / "device"
PROBE = """
#include "math.h"
#define PROBE(name) extern "C" void name(const float* x, float* y, long n) { \\
  for (long i = 0; i < n; ++i) y[i] = igf::math::name(x[i]); }
PROBE(exp) PROBE(log) PROBE(log1p)
#define PROBE_FUSED(name) extern "C" void name##_fused(const float* x, float* y, long n) { \\
  for (long i = 0; i < n; ++i) y[i] = igf::math::name<igf::math::Fused>(x[i]); }
PROBE_FUSED(exp) PROBE_FUSED(log) PROBE_FUSED(log1p)
"""
NAMES = ("exp", "log", "log1p")
BUILDS = {"baseline": "-ffp-contract=off", "fused": "-march=x86-64-v3"}
# Over which range a function errs by at most how many units in the last place.
BOUNDS = (("exp", -87.3365, 88.7228, 1.1), ("log", 0.0, np.inf, 1.0), ("log1p", 0.0, np.inf, 1.5))
# A prime step through the bit patterns of all floats: every exponent is visited 16,000 times, no pattern is favoured.
STEP = 509
SMALLEST_NORMAL = np.finfo(np.float32).tiny

Function = Callable[[np.ndarray], np.ndarray]


def compiler() -> str:
    found = next((c for c in (os.environ.get("CXX"), "c++", "g++", "clang++") if c and shutil.which(c)), None)
    if found is None:
        pytest.skip("no C++ compiler: the package itself was built elsewhere")
    return found


def build(kind: str, folder: Path) -> dict[str, Function]:
    """The functions compiled with one kind of BUILDS; skips where the processor could not run them."""
    if kind == "fused" and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("this processor has no fused multiply-add to test with")
    source, library = folder / f"{kind}.cpp", folder / f"{kind}.so"
    source.write_text(PROBE, encoding="utf-8")
    flags = ["-std=c++17", "-O3", "-fno-trapping-math", "-fno-math-errno", "-shared", "-fPIC", BUILDS[kind]]
    subprocess.run([compiler(), *flags, f"-I{HEADER_FOLDER}", str(source), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))

    def wrap(name: str) -> Function:
        native = getattr(loaded, name)
        native.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)

        def call(x: np.ndarray) -> np.ndarray:
            x = np.ascontiguousarray(x, dtype=np.float32)
            y = np.full_like(x, 12345.0)
            native(x.ctypes.data, y.ctypes.data, x.size)
            return y

        return call

    return {name: wrap(name) for name in (*NAMES, *(f"{name}_fused" for name in NAMES))}


@pytest.fixture(scope="module", params=list(BUILDS))
def functions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Function]:
    return build(request.param, tmp_path_factory.mktemp("math"))


def all_floats() -> np.ndarray:
    return np.arange(0, 2**32, STEP, dtype=np.uint64).astype(np.uint32).view(np.float32)


def worst_ulp(y: np.ndarray, exact: np.ndarray) -> float:
    """Largest |y - exact| in units in the last place of the exact value, where that is a normal float."""
    rounded = np.abs(exact.astype(np.float32))
    normal = (rounded >= SMALLEST_NORMAL) & np.isfinite(rounded)
    return float((np.abs(y.astype(np.float64) - exact)[normal] / np.spacing(rounded[normal])).max())


@pytest.mark.parametrize(("name", "low", "high", "bound"), BOUNDS)
def test_error_bound(functions: dict[str, Function], name: str, low: float, high: float, bound: float) -> None:
    with np.errstate(invalid="ignore"):
        x = all_floats()
        x = x[(x > low) & (x < high)]
    exact = getattr(np, name)(x.astype(np.float64))
    assert x.size > 1_000_000
    assert worst_ulp(functions[name](x), exact) <= bound
    # The measure can fail: an error of two units in the last place of one value is seen.
    spoiled = functions[name](x)
    spoiled[x.size // 2] += 3 * np.spacing(np.abs(spoiled[x.size // 2]))
    assert worst_ulp(spoiled, exact) > bound


def test_ends_of_the_range(functions: dict[str, Function]) -> None:
    exp, log, log1p = functions["exp"], functions["log"], functions["log1p"]
    inf, nan = np.inf, np.nan
    assert exp(np.array([-inf, -88.0, 0.0, -0.0, 89.0, inf])).tolist() == [0.0, 0.0, 1.0, 1.0, inf, inf]
    assert log(np.array([0.0, -0.0, 1.0, inf])).tolist() == [-inf, -inf, 0.0, inf]
    assert log1p(np.array([0.0, inf])).tolist() == [0.0, inf]
    for function in (exp, log, log1p):
        assert np.isnan(function(np.array([nan]))).all()
    assert np.isnan(log(np.array([-1.0, -inf]))).all()


def test_fused_functions_have_equal_bits_in_every_build(tmp_path: Path) -> None:
    """With the instruction and without it (then the C library's fmaf), and as accurate as the others."""
    baseline, fused = (build(kind, tmp_path) for kind in BUILDS)
    x = all_floats()[::16]
    for name in NAMES:
        left, right = baseline[f"{name}_fused"](x), fused[f"{name}_fused"](x)
        both_nan = np.isnan(left) & np.isnan(right)
        assert np.array_equal(left.view(np.uint32)[~both_nan], right.view(np.uint32)[~both_nan]), name
    # The test can fail: left to the compiler, some last bits differ.
    assert any(not np.array_equal(baseline[name](x), fused[name](x), equal_nan=True) for name in NAMES)


def test_error_bound_of_the_fused_functions(functions: dict[str, Function]) -> None:
    x = all_floats()[::4]
    for name, low, high, bound in BOUNDS:
        inside = x[(x > low) & (x < high)]
        assert worst_ulp(functions[f"{name}_fused"](inside), getattr(np, name)(inside.astype(np.float64))) <= bound
