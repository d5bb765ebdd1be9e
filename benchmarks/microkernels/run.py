"""Runs a micro-kernel on a GPU, or by the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.microkernels.cases import CASES, Case
from instructgpt_fast import simt
from instructgpt_fast.ops import _library  # noqa: F401  (loads the libraries)


def number_of(name: str) -> int:
    """FNV-1a over the name, 31 bits of it: number_of in csrc/microkernels/microkernels.h."""
    value = 2166136261
    for letter in name.encode():
        value = (value ^ letter) * 16777619 % 2**32
    return value >> 1


def one(case: Case, device: str) -> tuple[int, ...]:
    """The words a micro-kernel writes. With device "simt", below `with simt.executing()`."""
    signed = [word - 2**32 if word >= 2**31 else word for word in case.words]
    words = torch.tensor(signed, dtype=torch.int32, device="cpu" if device == "simt" else device)
    output = torch.ops.instructgpt_fast.microkernel(number_of(case.name), words)
    return tuple(word % 2**32 for word in output.cpu().tolist())


@contextmanager
def place(device: str) -> Iterator[None]:
    """Where kernels run below."""
    if device != "simt":
        yield
        return
    with simt.executing(architecture=90):
        yield


def has(case: Case, capability: int) -> bool:
    """Whether GPUs of this capability have the case's instruction."""
    return case.capability == capability or (case.capability < capability and not case.only)


def all_cases(device: str) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Name -> output, and the names of those that this GPU has no instruction for."""
    capability = 90
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        capability = 10 * major + minor
    with place(device):
        found = {case.name: one(case, device) for case in CASES.values() if has(case, capability)}
    return found, [name for name in CASES if name not in found]


def gpu_source(left_out: list[str]) -> str:
    """What outputs of this GPU are marked with."""
    text = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, torch {torch.__version__}"
    return f"{text}; not confirmed there: {', '.join(left_out)}" if left_out else text
