"""Builds host code of the CUDA half with a small runtime of the tests' own in the place of CUDA's."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from buildtools import discover

ROOT = Path(__file__).resolve().parents[2]


def build(probe: str, tested: str, folder: Path) -> Path:
    """A library of python_tests/device/`probe` and csrc/`tested` in `folder`; skips without nvcc's headers."""
    nvcc = discover.find_nvcc()[0]
    if nvcc is None:
        pytest.skip("no nvcc, whose headers this needs")
    built = folder / "probe.so"
    sources = [Path(__file__).parent / probe, ROOT / "csrc" / tested]
    flags = ["-x", "c++", "-std=c++20", "-O1", "-shared", "-Xcompiler", "-fPIC,-fno-gnu-unique,-Wall,-Werror",
             "-Xlinker", "-Bsymbolic", "-cudart", "none"]
    subprocess.run([str(nvcc), *flags, f"-I{ROOT / 'csrc'}", *map(str, sources), "-o", str(built)], check=True)
    return built


def load(library: Path, folder: Path) -> ctypes.CDLL:
    """The library as a fresh process would have it: from a file of its own, with nothing allocated or asked before."""
    copy = folder / library.name
    copy.write_bytes(library.read_bytes())
    return ctypes.CDLL(str(copy))
