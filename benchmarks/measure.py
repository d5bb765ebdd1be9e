"""How a figure is taken: contenders interleaved in one process on rotating inputs, medians, peak memory, JSON results.

    timings = interleaved({"ours": f, "plain": g}, inputs, device)     # f(inputs[i]), g(inputs[i]), f(...), ...
    print(timings["ours"].median_ms, ratio(timings, "plain", "ours"))
    write_results("adamw", device, {"rows": [...]})                    # benchmarks/results/<device>/adamw.json

Not covered: figures of other processes (a rival that cannot be imported beside ours needs its own).
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

from instructgpt_fast.files import atomic_write

RESULTS = Path(__file__).resolve().parent / "results"
Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Timing:
    """Times of one contender in milliseconds, one a round, in the order they were taken."""

    rounds_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.rounds_ms)

    @property
    def p10_ms(self) -> float:
        return _quantile(self.rounds_ms, 0.1)

    @property
    def p90_ms(self) -> float:
        return _quantile(self.rounds_ms, 0.9)

    def as_dict(self) -> dict[str, float]:
        """Median, 10th and 90th percentile in milliseconds, and how many rounds they come from."""
        return {
            "median_ms": self.median_ms,
            "p10_ms": self.p10_ms,
            "p90_ms": self.p90_ms,
            "rounds": len(self.rounds_ms),
        }


def interleaved(
    contenders: Mapping[str, Callable[[Inputs], Any]],
    inputs: Sequence[Inputs],
    device: str = "cpu",
    *,
    rounds: int = 30,
    seconds: float = 20.0,
    warmup: int = 2,
) -> dict[str, Timing]:
    """Time all contenders once a round, on the same inputs, in an order that turns from round to round.

    inputs: some sets, taken in turn, together larger than the caches. Stops after `rounds`, or after `seconds` once
    there were five rounds. On CUDA each time is between two events, with the device idle before.
    """
    names = list(contenders)
    for turn in range(warmup):
        for name in names:
            contenders[name](inputs[turn % len(inputs)])
    times: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for turn in range(rounds):
        if turn >= 5 and time.perf_counter() - started > seconds:
            break
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            times[name].append(_milliseconds(contenders[name], inputs[turn % len(inputs)], device))
    return {name: Timing(tuple(values)) for name, values in times.items()}


def ratio(timings: Mapping[str, Timing], slower: str, faster: str) -> float:
    """Median over rounds of time(slower) / time(faster): noise that hits a whole round cancels."""
    pairs = zip(timings[slower].rounds_ms, timings[faster].rounds_ms, strict=True)
    return statistics.median(a / b for a, b in pairs)


def peak_memory(function: Callable[[], Any], device: str = "cpu") -> int | None:
    """Bytes that a call needs beyond what is held before it, results included; None where this cannot be known.

    CPU: the peak of the resident set, which Linux lets a process reset. CUDA: what torch's allocator handed out.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = function()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        del kept
        return peak
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.exists() and reset.exists()):
        return None
    # Free memory that the C library keeps would hide what the call takes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        reset.write_text("5", encoding="ascii")
    except OSError:
        return None
    before = _status_bytes(status, "VmRSS")
    kept = function()
    peak = _status_bytes(status, "VmHWM") - before
    del kept
    return max(0, peak)


def device_description(device: str = "cpu") -> dict[str, Any]:
    """What a figure depends on: processor, threads, versions, the commit that was measured, and who else was computing.

    load_average: processes that wanted a core in the last 1, 5 and 15 minutes; above `cores`, trust no time.
    """
    described: dict[str, Any] = {
        "device": device,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "vector_level": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        described |= {"gpu": properties.name, "cuda": torch.version.cuda, "gpu_memory_bytes": properties.total_memory}
    return described


def ceilings(device: str = "cpu") -> dict[str, float]:
    """What the machine gives at best: copying (GB/s, read and write counted) and matmul (GFLOP/s by dtype)."""
    source = [torch.randn(1 << 24, device=device) for _ in range(2)]
    target = torch.empty_like(source[0])
    copies = interleaved({"copy": target.copy_}, source, device, rounds=12)["copy"]
    found = {"copy_gb_s": 2 * source[0].nbytes / copies.p10_ms / 1e6}
    for dtype in (torch.float32, torch.bfloat16):
        n = 2048
        pairs = [(torch.randn(n, n, device=device).to(dtype), torch.randn(n, n, device=device).to(dtype)) for _ in "ab"]
        out = torch.empty(n, n, device=device, dtype=dtype)
        timing = interleaved({"mm": lambda p, out=out: torch.mm(*p, out=out)}, pairs, device, rounds=10)["mm"]
        found[f"{str(dtype).removeprefix('torch.')}_gflop_s"] = 2 * n**3 / timing.p10_ms / 1e6
    return found


def results_path(name: str, device: str = "cpu") -> Path:
    """Where the results of a benchmark stand: one file a benchmark and device, replaced by each run."""
    folder = "cpu" if device == "cpu" else re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-")
    return RESULTS / folder / f"{name}.json"


def write_results(name: str, device: str, results: Mapping[str, Any]) -> Path:
    """Write results with the description of the device, whole or not at all; return the path."""
    path = results_path(name, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"benchmark": name, **device_description(device), **results}, indent=1)
    atomic_write(path, text + "\n")
    return path


def _milliseconds(function: Callable[[Inputs], Any], inputs: Inputs, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        kept = function(inputs)
        end.record()
        torch.cuda.synchronize()
        del kept
        return start.elapsed_time(end)
    started = time.perf_counter()
    kept = function(inputs)
    elapsed = (time.perf_counter() - started) * 1e3
    del kept  # outside the clock: giving large results back to the system takes time of its own
    return elapsed


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]


def _status_bytes(status: Path, field: str) -> int:
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
