"""csrc/device/philox.h gives the numbers published for Philox4x32-10, and uniform floats at both ends of (0, 1)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

HEADER_FOLDER = Path(__file__).resolve().parents[2] / "csrc" / "device"
PROBE = """
#include "philox.h"
using namespace igf::philox;
extern "C" void draw_one(const std::uint32_t* c, const std::uint32_t* k, std::uint32_t* out) {
  const Block b = draw({c[0], c[1], c[2], c[3]}, {k[0], k[1]});
  out[0] = b.w0; out[1] = b.w1; out[2] = b.w2; out[3] = b.w3;
}
extern "C" void draw_many(std::int64_t seed, std::uint32_t* out, long blocks) {  // the vectorised use
  for (long i = 0; i < blocks; ++i) {
    const Block b = draw({static_cast<std::uint32_t>(i), 0, 0, kSampling}, key_of(seed));
    out[i] = b.w0; out[blocks + i] = b.w1; out[2 * blocks + i] = b.w2; out[3 * blocks + i] = b.w3;
  }
}
extern "C" void units(const std::uint32_t* words, float* x, float* rest, long n) {
  for (long i = 0; i < n; ++i) { x[i] = unit(words[i]); rest[i] = unit_complement(words[i]); }
}
"""

# counter, key, answer: the three "philox4x32 10" lines of kat_vectors in the Random123 distribution.
PUBLISHED = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], dtype=np.uint32)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    compiler = next((c for c in (os.environ.get("CXX"), "c++", "g++", "clang++") if c and shutil.which(c)), None)
    if compiler is None:
        pytest.skip("no C++ compiler: the package itself was built elsewhere")
    folder = tmp_path_factory.mktemp("philox")
    (folder / "probe.cpp").write_text(PROBE, encoding="utf-8")
    library = folder / "probe.so"
    subprocess.run([compiler, "-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                    f"-I{HEADER_FOLDER}", str(folder / "probe.cpp"), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))

    def call(name: str, *arguments: np.ndarray | int) -> None:
        getattr(loaded, name)(*(ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int64(a)
                                for a in arguments))

    return call


@pytest.mark.parametrize(("counter", "key", "answer"), PUBLISHED)
def test_published_answers(probe: Callable[..., None], counter: str, key: str, answer: str) -> None:
    out = np.zeros(4, dtype=np.uint32)
    probe("draw_one", words(counter), words(key), out)
    assert out.tolist() == words(answer).tolist()


def test_a_vectorised_loop_draws_the_same(probe: Callable[..., None]) -> None:
    """The seed's halves are the key, low first, also for a negative seed; the use stands in the last counter word."""
    blocks, seed = 37, -(2**40) + 12345
    many, one = np.zeros((4, blocks), dtype=np.uint32), np.zeros(4, dtype=np.uint32)
    probe("draw_many", seed, many, blocks)
    bits = seed % 2**64
    key = np.array([bits % 2**32, bits >> 32], dtype=np.uint32)
    for i in range(blocks):
        probe("draw_one", np.array([i, 0, 0, 1], dtype=np.uint32), key, one)
        assert many[:, i].tolist() == one.tolist()


def test_uniform_floats_keep_precision_at_both_ends(probe: Callable[..., None]) -> None:
    drawn = np.array([0, 1, 2, 3, 2**31, 2**32 - 3, 2**32 - 2, 2**32 - 1], dtype=np.uint32)
    x, rest = np.zeros(drawn.size, dtype=np.float32), np.zeros(drawn.size, dtype=np.float32)
    probe("units", drawn, x, rest, drawn.size)
    exact = (drawn.astype(np.float64) + 0.5) / 2**32
    # Two roundings (to float, and of the sum) of half a unit each: one part in 2^23 at the most.
    assert np.allclose(x, exact, rtol=2.0**-23, atol=0)
    assert np.allclose(rest, 1 - exact, rtol=2.0**-23, atol=0)
    assert x.min() > 0 and rest.min() > 0
