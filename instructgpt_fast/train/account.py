"""What a run's work costs: FLOPs for each unit of work, and the most that the device does in the same process.

Not covered: a ceiling for memory traffic; decoding and the optimizer are bound by that and not by arithmetic.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from instructgpt_fast.train.flops import FORMULA
from instructgpt_fast.train.records import Ceiling, RunRecord

__all__ = ["Account", "measure_ceiling"]

WORTH_MEASURING = 20.0  # seconds of a run: below this the ceiling would be a cost to be seen, and a rate mostly noise
LONG_PRODUCT = 0.05  # seconds: one product this long hides what it costs to call it
SMALLEST, LARGEST = 256, 16_384  # sides of the matrices
ROUNDS = 3


class Account:
    """Keeps run.json of one process; writes it when work begins and when it ends."""

    def __init__(self, stage: str, unit: str, run_dir: Path, device: torch.device, dtype: torch.dtype) -> None:
        self._run_dir, self._device, self._dtype = run_dir, device, dtype
        self._record = RunRecord(
            stage=stage, started=_now(), unit=unit, device=str(device), dtype=str(dtype).removeprefix("torch."),
            threads=torch.get_num_threads(), flops_formula=FORMULA,
        )
        self._work = self._flops = 0.0
        self._begun: float | None = None

    def describe(self, modules: Mapping[str, nn.Module]) -> None:
        """Say which models the run trains."""
        sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
        self._record = dataclasses.replace(self._record, parameters=sizes)

    def begin(self) -> None:
        """Work begins: a run that is complete already never comes here, and keeps the record of its work."""
        self._begun = time.monotonic()
        self._record.write(self._run_dir)

    def add(self, work: float, flops: float) -> None:
        """Count work in the run's unit, and its FLOPs."""
        self._work += work
        self._flops += flops

    def measure_ceiling(self) -> None:
        """Measure what the device can do when the run was long enough for the question to make sense."""
        if self._begun is not None and time.monotonic() - self._begun >= WORTH_MEASURING:
            found = measure_ceiling(self._device, self._dtype, LONG_PRODUCT)
            self._record = dataclasses.replace(self._record, ceiling=found)

    def end(self) -> None:
        """Write what is known. Raises CheckpointError when the disk refuses."""
        if self._begun is None:
            return
        each = self._flops / self._work if self._work else None
        self._record = dataclasses.replace(self._record, ended=_now(), flops_per_unit=each)
        self._record.write(self._run_dir)


def measure_ceiling(device: torch.device, dtype: torch.dtype, seconds: float) -> Ceiling:
    """FLOP/s of the best of three products of square matrices, so large that one takes `seconds` at least."""
    side = SMALLEST
    while True:
        a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
        _product(a, b)  # the first one also pays for memory and for choosing a kernel
        passed = min(_product(a, b) for _ in range(ROUNDS))
        if passed >= seconds or side >= LARGEST:
            break
        side *= 2
    where = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    name = str(dtype).removeprefix("torch.")
    return Ceiling(2.0 * side**3 / passed, f"[{side}, {side}] matrix product in {name} on {device.type}{where}")


def _product(a: torch.Tensor, b: torch.Tensor) -> float:
    started = time.perf_counter()
    result = a @ b
    if result.device.type == "cuda":
        torch.cuda.synchronize(result.device)
    return max(time.perf_counter() - started, 1e-9)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
