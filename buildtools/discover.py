"""Finds what a build needs (torch's headers, cmake, ninja) without importing torch."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path


def torch_include() -> Path:
    """Returns the folder that holds torch/csrc/stable; INSTRUCTGPT_FAST_TORCH_INCLUDE overrides the search."""
    given = os.environ.get("INSTRUCTGPT_FAST_TORCH_INCLUDE")
    if given:
        candidate = Path(given)
    else:
        spec = importlib.util.find_spec("torch")  # looks torch up; does not run it
        if spec is None or spec.origin is None:
            raise SystemExit(
                "instructgpt_fast build: torch's headers are needed and no torch is installed for "
                f"{sys.executable}; install torch>=2.11 first, or set INSTRUCTGPT_FAST_TORCH_INCLUDE to its include folder"
            )
        candidate = Path(spec.origin).parent / "include"
    if not (candidate / "torch/csrc/stable/library.h").is_file():
        raise SystemExit(
            f"instructgpt_fast build: {candidate} holds no torch/csrc/stable/library.h; "
            "torch>=2.11 is needed to build (any of them: the result runs under each)"
        )
    return candidate.resolve()


def tool(name: str) -> str:
    """Returns the path of cmake or ninja: beside this Python, from its wheel, or on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / name
    if beside.is_file():
        return str(beside)
    if importlib.util.find_spec(name) is not None:
        module = importlib.import_module(name)
        folder = getattr(module, "CMAKE_BIN_DIR", None) or getattr(module, "BIN_DIR", None)
        if folder and (Path(folder) / name).is_file():
            return str(Path(folder) / name)
    found = shutil.which(name)
    if found is None:
        raise SystemExit(
            f"instructgpt_fast build: {name} was not found beside {sys.executable} nor on PATH; `pip install {name}`"
        )
    return found


def jobs() -> int:
    """Returns how many compilers to run at once: MAX_JOBS, else the cores, at 1 GB of free memory each."""
    given = os.environ.get("MAX_JOBS")
    if given:
        return max(1, int(given))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, int(free_bytes // 1_000_000_000)))
