"""How a figure is taken: contenders interleaved in one process on rotating inputs, medians, peak memory, JSON results.

    timings = interleaved({"ours": f, "plain": g}, inputs, device)     # f(inputs[i]), g(inputs[i]), f(...), ...
    print(timings["ours"].median_ms, ratio(timings, "plain", "ours"))
    write_results("adamw", device, {"rows": [...]})                    # benchmarks/results/<device>/adamw.json

On a GPU see benchmarks/gpu_clock.py for what a time is.
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
from typing import Any, Protocol, TypeVar

import torch

from benchmarks.gpu_clock import GpuClock, Prepared, sets_beyond_cache
from instructgpt_fast.files import atomic_write

RESULTS = Path(__file__).resolve().parent / "results"
Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Timing:
    """Times of one contender in milliseconds, one a round, in the order they were taken."""

    rounds_ms: tuple[float, ...]
    timed: str = "wall clock"

    @property
    def median_ms(self) -> float:
        return statistics.median(self.rounds_ms)

    @property
    def p10_ms(self) -> float:
        return _quantile(self.rounds_ms, 0.1)

    @property
    def p90_ms(self) -> float:
        return _quantile(self.rounds_ms, 0.9)

    def as_dict(self) -> dict[str, Any]:
        """Median, 10th and 90th percentile in milliseconds, how many rounds they come from, and what a time is."""
        return {
            "median_ms": self.median_ms,
            "p10_ms": self.p10_ms,
            "p90_ms": self.p90_ms,
            "rounds": len(self.rounds_ms),
            "timed": self.timed,
        }


class Clock(Protocol):
    """Prepares a contender, and times one round of it."""

    def prepare(
        self, name: str, function: Callable[[Any], Any], inputs: Sequence[Any], warmup: int
    ) -> Prepared[Any]: ...

    def milliseconds(self, prepared: Prepared[Any], turn: int) -> float: ...


class WallClock:
    """Times on a CPU."""

    def prepare(
        self, name: str, function: Callable[[Inputs], Any], inputs: Sequence[Inputs], warmup: int
    ) -> Prepared[Inputs]:
        """Warm up."""
        for turn in range(warmup):
            function(inputs[turn % len(inputs)])
        return Prepared(function, inputs, how="wall clock")

    def milliseconds(self, prepared: Prepared[Inputs], turn: int) -> float:
        """The time of one call."""
        started = time.perf_counter()
        kept = prepared.function(prepared.inputs[turn % len(prepared.inputs)])
        elapsed = (time.perf_counter() - started) * 1e3
        del kept  # outside the clock: giving large results back to the system takes time of its own
        return elapsed


def interleaved(
    contenders: Mapping[str, Callable[[Inputs], Any]],
    inputs: Sequence[Inputs],
    device: str = "cpu",
    *,
    rounds: int = 30,
    seconds: float = 20.0,
    warmup: int = 2,
    clock: Clock | None = None,
) -> dict[str, Timing]:
    """Time all contenders once a round, on the same inputs, in an order that turns from round to round.

    inputs: some sets, taken in turn, together larger than the caches (`rotated` makes them). Stops after `rounds`, or
    after `seconds` once there were five rounds. clock: by default the device's.
    """
    clock = clock or (GpuClock() if device == "cuda" else WallClock())
    names = list(contenders)
    prepared = {name: clock.prepare(name, contenders[name], inputs, warmup) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for turn in range(rounds):
        if turn >= 5 and time.perf_counter() - started > seconds:
            break
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            times[name].append(clock.milliseconds(prepared[name], turn))
    return {name: Timing(tuple(values), prepared[name].how) for name, values in times.items()}


def rotated(draw: Callable[[int], Inputs], device: str = "cpu") -> list[Inputs]:
    """Sets of inputs to take in turn: three drawn ones and, on a GPU, copies of these until the caches hold none."""
    drawn = [draw(seed) for seed in range(3)]
    if device != "cuda":
        return drawn
    properties = torch.cuda.get_device_properties(0)
    bytes_of_one = sum(t.numel() * t.element_size() for t in _tensors(drawn[0]))
    count = sets_beyond_cache(bytes_of_one, properties.L2_cache_size, properties.total_memory)
    return drawn[:count] + [_copied(drawn[i % 3]) for i in range(3, count)]


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
    status = Path("/proc/self/status")
    if not reset_peak():
        return None
    before = _status_bytes(status, "VmRSS")
    kept = function()
    peak = _status_bytes(status, "VmHWM") - before
    del kept
    return max(0, peak)


def reset_peak() -> bool:
    """Let the peak of this process's resident set (VmHWM) begin anew; False where the system does not offer it."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return False
    # Free memory that the C library keeps would hide what a call takes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        reset.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


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
        described |= {"gpu": properties.name, "cuda": torch.version.cuda, "gpu_memory_bytes": properties.total_memory,
                      **gpu_state()}
    return described


def gpu_state() -> dict[str, str | None]:
    """Driver, clocks, power and temperature as nvidia-smi tells them now; None for what it does not tell."""
    fields = {"driver": "driver_version", "sm_clock_mhz": "clocks.sm", "memory_clock_mhz": "clocks.mem",
              "most_sm_clock_mhz": "clocks.max.sm", "power_w": "power.draw", "temperature_c": "temperature.gpu"}
    command = ["nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return dict.fromkeys(fields)
    values = [value.strip() for value in found.strip().splitlines()[0].split(",")]
    if len(values) != len(fields):
        return dict.fromkeys(fields)
    return {name: None if value.startswith("[") else value for name, value in zip(fields, values, strict=True)}


def ceilings(device: str = "cpu") -> dict[str, float]:
    """What the machine gives at best: copying (GB/s, read and write counted) and matmul (GFLOP/s by dtype)."""
    # On a GPU far beyond the cache, and enough work for all of it.
    elements, sizes = (1 << 24, {torch.float32: 2048, torch.bfloat16: 2048})
    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory
        elements, sizes = min(1 << 29, memory // 64), {torch.float32: 4096, torch.bfloat16: 8192}
    source = [torch.randn(elements, device=device) for _ in range(2)]
    target = torch.empty_like(source[0])
    copies = interleaved({"copy": target.copy_}, source, device, rounds=12)["copy"]
    found = {"copy_gb_s": 2 * source[0].nbytes / copies.p10_ms / 1e6}
    del source, target
    for dtype, n in sizes.items():
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


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(part) for part in value)
    return value


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


def _commit(checkout: Path = RESULTS.parents[1]) -> str | None:
    """The commit that is measured, "-dirty" where files differ from it; what a run has just recorded does not count."""
    name = ["git", "describe", "--always", "--exclude=*"]
    changes = ["git", "diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)benchmarks/results"]
    try:
        found = subprocess.run(name, cwd=checkout, capture_output=True, text=True, check=False).stdout.strip()
        changed = subprocess.run(changes, cwd=checkout, capture_output=True, check=False).returncode == 1
    except OSError:  # no git on this machine
        return None
    return found + "-dirty" * changed if found else None
