"""Runs the CUDA kernels of this package on the CPU, every thread of them, with every access checked and counted.

    from instructgpt_fast import ops, simt

    with simt.executing(schedule="random", seed=3) as run:
        y = ops.layer_norm(x, weight, bias)          # CPU tensors; autograd's backward runs the kernels too
    print(run.launches[0].buffers["x"].loaded_bytes)

The library is built with INSTRUCTGPT_FAST_SIMT=ON; `simt.available()` tells whether it was. docs/simt.md explains the
emulator, its messages and its limits; `python -m instructgpt_fast.simt layer_norm` prints one op's account.
"""

from __future__ import annotations

from instructgpt_fast.simt._library import SimtError, available, operators
from instructgpt_fast.simt.execution import MUTATIONS, Mutation, Run, executing
from instructgpt_fast.simt.report import Launch, Place, Site, Traffic

__all__ = [
    "MUTATIONS",
    "Launch",
    "Mutation",
    "Place",
    "Run",
    "SimtError",
    "Site",
    "Traffic",
    "available",
    "executing",
    "operators",
]
