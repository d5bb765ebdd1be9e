"""Compiles a few functions together with parts of the emulator, to be called through ctypes."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

CSRC = Path(__file__).resolve().parents[2] / "csrc"


def compiled(folder: Path, text: str, *parts: str) -> ctypes.CDLL:
    """The library made of `text` and of csrc/simt/<part>.cpp."""
    source, library = folder / "probe.cpp", folder / "probe.so"
    source.write_text(text, encoding="utf-8")
    sources = [str(source), *(str(CSRC / "simt" / f"{part}.cpp") for part in parts)]
    command = ["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{CSRC}"]
    subprocess.run([*command, *sources, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
