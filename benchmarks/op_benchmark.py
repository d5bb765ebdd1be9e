"""The common form of an op's benchmark: check against the oracle, time beside plain PyTorch, print a table, write JSON.

A file benchmarks/ops/bench_<op>.py states its cases and ends with

    def main(arguments: Sequence[str] | None = None) -> None:
        run("<op>", cases, arguments)

where `cases(device)` returns `Case`s. A contender takes the inputs of a case and returns its results as a list of
tensors (with the gradients, where these are part of the work).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.measure import Timing, ceilings, interleaved, peak_memory, ratio, write_results
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


def run(op: str, cases: Callable[[str], Sequence[Case]], arguments: Sequence[str] | None = None) -> None:
    """Check and time every case of an op, print the table, write the results."""
    parser = argparse.ArgumentParser(prog=f"benchmarks/run.py {op}", description=f"Benchmark of {op}.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=30, help="timed runs of each contender")
    parser.add_argument("--seconds", type=float, default=10.0, help="stop a case after this time (from 5 rounds on)")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice by default")
    parser.add_argument("--only", default="", help="run the cases whose name contains this; writes no results")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    best = ceilings(options.device)
    print(f"{op} on {options.device}: " + ", ".join(f"{name} {value:.0f}" for name, value in best.items()))
    rows = []
    for case in cases(options.device):
        if options.only in case.name:
            check(case)
            rows.append(measured(case, options, best))
            print_row(rows[-1], header=len(rows) == 1)
    if not options.only:
        print(f"written to {write_results(op, options.device, {'ceilings': best, 'rows': rows})}")


def check(case: Case) -> None:
    """Raise AssertionError unless ours is as near to the float64 oracle as plain PyTorch is, on fresh inputs."""
    draw, seed = case.draw_check or case.draw, 1234
    yardstick = next(iter(case.rivals.values()))
    results = zip(case.ours(draw(seed)), case.oracle(_in_float64(draw(seed))), yardstick(draw(seed)), strict=True)
    for i, (actual, oracle, plain) in enumerate(results):
        compare(actual.cpu(), oracle.cpu(), plain.cpu(), name=f"{case.name}: result {i}", **case.looser)


def measured(case: Case, options: argparse.Namespace, best: Mapping[str, float]) -> dict[str, Any]:
    """Time and peak memory of all contenders of a case."""
    contenders = {"ours": case.ours, **case.rivals}
    inputs = [case.draw(seed) for seed in range(3)]
    timings = interleaved(contenders, inputs, options.device, rounds=options.rounds, seconds=options.seconds)
    memory = {name: peak_memory(lambda f=f: f(inputs[0]), options.device) for name, f in contenders.items()}
    ideal_ms = max(case.moved_bytes / best["copy_gb_s"], _matmul_time(case, best)) / 1e6
    return {
        "case": case.name,
        "contenders": {n: {**timings[n].as_dict(), "peak_bytes": memory[n]} for n in contenders},
        "speedup": {name: ratio(timings, name, "ours") for name in case.rivals},
        "share_of_ceiling": ideal_ms / timings["ours"].median_ms if ideal_ms else None,
    }


def print_row(row: Mapping[str, Any], *, header: bool) -> None:
    """One line a case: our median (10th..90th percentile), our peak memory, then each rival's and our speed-up."""
    if header:
        print(f"{'case':<38} {'ours ms (p10..p90)':>26} {'MiB':>7} {'ceiling':>8}   rivals: ms, MiB, speed-up")
    ours = row["contenders"]["ours"]
    spread = f"{ours['median_ms']:.2f} ({ours['p10_ms']:.2f}..{ours['p90_ms']:.2f})"
    share = "" if row["share_of_ceiling"] is None else f"{row['share_of_ceiling']:.0%}"
    rivals = "; ".join(
        f"{name} {row['contenders'][name]['median_ms']:.2f}, {_mebibytes(row['contenders'][name])}, {speedup:.2f}x"
        for name, speedup in row["speedup"].items()
    )
    print(f"{row['case']:<38} {spread:>26} {_mebibytes(ours):>7} {share:>8}   {rivals}", flush=True)


def _mebibytes(figures: Mapping[str, Any]) -> str:
    return "?" if figures["peak_bytes"] is None else f"{figures['peak_bytes'] / MEBIBYTE:.0f}"


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
