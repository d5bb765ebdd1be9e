"""Loads the native libraries once and says which operators have which executions."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from instructgpt_fast.errors import BackendError

NAMESPACE = "instructgpt_fast"
LIBRARY_DIR = Path(__file__).resolve().parent.parent / "lib"

# "simt": the CUDA kernels as the emulator runs them (instructgpt_fast/simt), on CPU tensors.
DISPATCH_KEYS = {"cpu": "CPU", "cuda": "CUDA", "meta": "Meta", "simt": "PrivateUse1"}

HOW_TO_BUILD = (
    "build it with `pip install .` from a checkout, or in place with `python setup.py build_ext --inplace`"
)


def load(path: Path) -> None:
    """Loads one shared library of operators; a second copy from elsewhere is refused, because it would crash torch.

    Raises BackendError when the file is missing, cannot be loaded, or another copy is already in the process.
    """
    if not path.is_file():
        raise BackendError(f"instructgpt_fast.ops: {path} does not exist; {HOW_TO_BUILD}")
    for loaded in torch.ops.loaded_libraries:
        other = Path(loaded)
        if other.name == path.name and not (other.exists() and os.path.samefile(other, path)):
            raise BackendError(
                f"instructgpt_fast.ops: {other} is already loaded, a second copy at {path} would crash torch; "
                "use one installation in a process (a checkout on PYTHONPATH beside an installed package is two)"
            )
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise BackendError(f"instructgpt_fast.ops: {path} did not load: {error}; {HOW_TO_BUILD}") from error


def load_all() -> None:
    """Loads the CPU library, and the CUDA library where it was built."""
    load(LIBRARY_DIR / "libigf_cpu.so")
    cuda = LIBRARY_DIR / "libigf_cuda.so"
    if cuda.is_file():
        load(cuda)


def has_kernel(op: str, device_type: str) -> bool:
    """Tells whether `op` has a native execution for "cpu", "cuda" or "simt"; for "meta", whether it has a fake."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{op}", DISPATCH_KEYS[device_type])


def operators_on(device_type: str) -> frozenset[str]:
    """Names of all operators of this package with an execution for "cpu", "cuda" or "simt"."""
    prefix = f"{NAMESPACE}::"
    names = (name for name in torch._C._dispatch_get_all_op_names() if name.startswith(prefix))
    return frozenset(
        name.removeprefix(prefix) for name in names if has_kernel(name.removeprefix(prefix), device_type)
    )


load_all()

# Looked up on every call with a CUDA tensor, and while torch.compile traces: so a plain set, made once.
CUDA_OPERATORS = operators_on("cuda")
