"""The common form of an op's benchmark: check against the oracle, time beside plain PyTorch, print a table, write JSON.

A file benchmarks/ops/bench_<op>.py states its cases and ends with

    def main(arguments: Sequence[str] | None = None) -> None:
        run("<op>", cases, arguments)

where `cases(device)` returns `Case`s. A contender takes the inputs of a case and returns its results as a list of
tensors (with the gradients, where these are part of the work).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Timing, ceilings, interleaved, peak_memory, ratio, rotated, write_results
from python_tests.accuracy import compare

Inputs = dict[str, Any]
Contender = Callable[[Inputs], Sequence[torch.Tensor]]
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Case:
    """One size and dtype of an op.

    draw: seed -> fresh inputs. ours: our op. rivals: plain PyTorch first, which is also the yardstick of the check.
    oracle: called with float64 copies of the inputs. draw_check: smaller inputs for the check, where float64 would not
    fit. moved_bytes, flops: the least that the work takes, for its share of the machine's ceiling. dtype: of the
    matmuls. looser: as for python_tests.accuracy.compare, with its reason.
    """

    name: str
    draw: Callable[[int], Inputs]
    ours: Contender
    rivals: Mapping[str, Contender]
    oracle: Contender
    draw_check: Callable[[int], Inputs] | None = None
    moved_bytes: float = 0.0
    flops: float = 0.0
    dtype: torch.dtype = torch.float32
    looser: Mapping[str, Any] = field(default_factory=dict)


def parse(op: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a benchmark's command line."""
    parser = argparse.ArgumentParser(prog=f"benchmarks/run.py {op}", description=f"Benchmark of {op}.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=30, help="timed runs of each contender")
    parser.add_argument("--seconds", type=float, default=10.0, help="stop a case after this time (from 5 rounds on)")
    parser.add_argument("--budget", type=float, help="start no case after this many seconds; the result names those")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice by default")
    parser.add_argument("--seed", type=int, help="of the inputs that are checked; on a GPU another one each time")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None,
                        help="torch.compile of the first rival as one more rival; on a GPU by default. "
                        "--no-compile also leaves out the cases' own compiled rivals, which take minutes to compile")
    parser.add_argument("--only", default="", help="run the cases whose name contains this; writes no results")
    options = parser.parse_args(arguments)
    on_gpu = options.device == "cuda"
    options.own_compiled = options.compile is not False
    options.compile = on_gpu if options.compile is None else options.compile
    if options.seed is None:
        options.seed = time.time_ns() % 2**31 if on_gpu else 1234
    return options


def run(op: str, cases: Callable[[str], Sequence[Case]], arguments: Sequence[str] | None = None) -> None:
    """Check and time every case of an op, print the table, write the results."""
    options = parse(op, arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"benchmarks/run.py {op}: --device cuda: this torch ({torch.__version__}) sees no GPU")
    if options.threads:
        torch.set_num_threads(options.threads)
    started = time.perf_counter()
    best = ceilings(options.device)
    print(f"{op} on {options.device}: " + ", ".join(f"{name} {value:.0f}" for name, value in best.items()))
    rows: list[dict[str, Any]] = []
    left_out = []
    pending = [case for case in cases(options.device) if options.only in case.name]
    while pending:
        case = pending.pop(0)  # nobody holds it any longer than its turn: some keep gigabytes of inputs
        if options.budget is not None and time.perf_counter() - started > options.budget:
            left_out.append(case.name)
            continue
        check(case, options.seed)
        rows.append(measured(case, options, best))
        print_row(rows[-1], header=len(rows) == 1)
        if pending and not options.only:
            # What is stopped has not run for nothing.
            _write(op, options, best, rows, [*left_out, *(later.name for later in pending)])
    if left_out:
        print(f"not measured, because {options.budget:g} s were over: {', '.join(left_out)}")
    if not options.only:
        print(f"written to {_write(op, options, best, rows, left_out)}")


def _write(
    op: str, options: argparse.Namespace, best: Mapping[str, float], rows: list[dict[str, Any]], left_out: list[str]
) -> Path:
    results = {"ceilings": best, "check_seed": options.seed, "rows": rows, "left_out": left_out}
    return write_results(op, options.device, results)


def check(case: Case, seed: int = 1234) -> None:
    """Raise AssertionError unless ours is as near to the float64 oracle as plain PyTorch is, on fresh inputs.

    Ours runs with NaN in all memory that it gets: what it forgets to write is found.
    """
    draw = case.draw_check or case.draw
    yardstick = next(iter(case.rivals.values()))
    inputs = draw(seed)
    with poisoned_memory():
        ours = case.ours(inputs)
    results = zip(ours, case.oracle(_in_float64(draw(seed))), yardstick(draw(seed)), strict=True)
    for i, (actual, oracle, plain) in enumerate(results):
        name = f"{case.name}: result {i} (seed {seed})"
        compare(actual, oracle.to(actual.device), plain.to(actual.device), name=name, **case.looser)


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Every tensor that is allocated without a value is NaN, or the largest integer."""
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
              torch.utils.deterministic.fill_uninitialized_memory)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deterministic.*")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.utils.deterministic.fill_uninitialized_memory = before[2]


def measured(case: Case, options: argparse.Namespace, best: Mapping[str, float]) -> dict[str, Any]:
    """Time and peak memory of all contenders of a case."""
    inputs = rotated(case.draw, options.device)
    name, plain = next(iter(case.rivals.items()))
    others = {other: rival for other, rival in case.rivals.items() if other != name}
    if not options.own_compiled:
        others = {other: rival for other, rival in others.items() if "compile" not in other}
    if options.compile:
        others[f"{name}, compiled"] = torch.compile(plain)
    rivals = {name: plain, **usable(case, others, inputs[0])}
    contenders = {"ours": case.ours, **rivals}
    timings = interleaved(contenders, inputs, options.device, rounds=options.rounds, seconds=options.seconds)
    memory = {name: peak_memory(lambda f=f: f(inputs[0]), options.device) for name, f in contenders.items()}
    ideal_ms = max(case.moved_bytes / best["copy_gb_s"], _matmul_time(case, best)) / 1e6
    return {
        "case": case.name,
        "input_sets": len(inputs),
        "contenders": {
            n: {**timings[n].as_dict(), "peak_bytes": memory[n], **_rate(case, timings[n])} for n in contenders
        },
        "speedup": {name: ratio(timings, name, "ours") for name in rivals},
        "share_of_ceiling": ideal_ms / timings["ours"].median_ms if ideal_ms else None,
    }


def usable(case: Case, rivals: Mapping[str, Contender], inputs: Inputs) -> dict[str, Contender]:
    """The rivals that run; a warning for each that does not."""
    running = {}
    for name, rival in rivals.items():
        try:
            rival(inputs)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            print(f"WARNING: {case.name}: {name} is left out: {reason}", file=sys.stderr, flush=True)
        else:
            running[name] = rival
    return running


def print_row(row: Mapping[str, Any], *, header: bool) -> None:
    """One line a case: our median (10th..90th percentile), memory, rate, share of the ceiling; then each rival."""
    if header:
        print(f"{'case':<38} {'ours ms (p10..p90)':>26} {'MiB':>7} {'TFLOP/s':>8} {'ceiling':>8}   "
              "rivals: ms, MiB, speed-up")
    ours = row["contenders"]["ours"]
    spread = f"{_time(ours['median_ms'])} ({_time(ours['p10_ms'])}..{_time(ours['p90_ms'])})"
    share = "" if row["share_of_ceiling"] is None else f"{row['share_of_ceiling']:.0%}"
    rate = f"{ours['tflop_s']:.3g}" if "tflop_s" in ours else ""
    rivals = "; ".join(
        f"{name} {_time(row['contenders'][name]['median_ms'])}, {_mebibytes(row['contenders'][name])}, {speedup:.2f}x"
        for name, speedup in row["speedup"].items()
    )
    print(f"{row['case']:<38} {spread:>26} {_mebibytes(ours):>7} {rate:>8} {share:>8}   {rivals}", flush=True)


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds >= 1 else f"{milliseconds:.4f}"


def _mebibytes(figures: Mapping[str, Any]) -> str:
    return "?" if figures["peak_bytes"] is None else f"{figures['peak_bytes'] / MEBIBYTE:.0f}"


def _rate(case: Case, timing: Timing) -> dict[str, float]:
    """TFLOP/s at the median, where the case states its flops."""
    return {"tflop_s": case.flops / timing.median_ms / 1e9} if case.flops else {}


def _matmul_time(case: Case, best: Mapping[str, float]) -> float:
    """Nanoseconds at the machine's best."""
    dtype = "bfloat16" if case.dtype in (torch.bfloat16, torch.float16) else "float32"
    return case.flops / best[f"{dtype}_gflop_s"]


def _in_float64(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _in_float64(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_in_float64(part) for part in value)
    return value


__all__ = ["Case", "Inputs", "Timing", "check", "measured", "print_row", "run"]
