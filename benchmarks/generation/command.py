"""The command line of a generation benchmark, and its file under benchmarks/results/<device>/."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.generation.compare import priority, weights_path
from benchmarks.generation.weights import our_model, write_weights
from benchmarks.measure import interleaved, peak_memory, ratio, write_results
from benchmarks.stages.compare import ROOT
from benchmarks.stages.work import Size
from instructgpt_fast.model import GPT

LIBRARIES = ("transformers", "trl", "fastapi", "uvicorn")


def parse(name: str, arguments: Sequence[str] | None, rounds: int) -> argparse.Namespace:
    """The options that all of them have; `rounds` is the default."""
    parser = argparse.ArgumentParser(prog=f"benchmarks/generation/bench_{name}.py")
    parser.add_argument("--rounds", type=int, default=rounds, help="timed calls of each contender")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="run the cases whose name contains this; writes no results")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "benchmarks" / "generation",
                        help="random weights to work on, kept")
    parser.add_argument("--no-record", action="store_true", help="print only; write no file under benchmarks/results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return options


def model_of(size: Size, options: argparse.Namespace) -> GPT:
    """The model of one size on random weights."""
    path = weights_path(options.folder, size)
    write_weights(path, size)
    return our_model(path, size)


def record(
    name: str, options: argparse.Namespace, rows: Sequence[Mapping[str, Any]], **more: Any
) -> None:
    """Write the rows with the settings and versions of the run, unless only some were run or nothing is wanted."""
    if options.no_record or options.only:
        return
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES if importlib.util.find_spec(name)}
    settings = {"rounds": options.rounds, "threads": options.threads, "priority": priority()}
    path = write_results(
        f"generation_{name}", "cpu", {"settings": settings, "versions": versions, **more, "rows": list(rows)}
    )
    print(f"written to {path}")


def timed(
    work: Mapping[str, Callable[[Any], Any]], tokens: Mapping[str, int], rounds: int
) -> dict[str, dict[str, Any]]:
    """Time contenders of one process in turns; the first is what the others are compared with.

    work: what to call, its argument is of no use. tokens: useful tokens of a call. Each gets its times, tokens per
    second, `relative` (its rate over the first one's, median of the rounds) and the memory of a call.
    """
    timings = interleaved(work, [None], rounds=rounds, seconds=60.0, warmup=1)
    first = next(iter(work))
    return {
        name: {
            **timings[name].as_dict(), "tokens": tokens[name],
            "tokens_per_second": tokens[name] / timings[name].median_ms * 1e3,
            "relative": ratio(timings, first, name) * tokens[name] / tokens[first],
            "peak_bytes": peak_memory(lambda call=call: call(None)),
        }
        for name, call in work.items()
    }


def show(case: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one case of contenders timed in one process."""
    print(f"\n{case}")
    for name, found in figures.items():
        memory = "" if found["peak_bytes"] is None else f"{found['peak_bytes'] / (1 << 20):8.0f} MiB"
        rate = f"{found['tokens_per_second']:>10,.0f} tokens/s{found['relative']:>8.2f}x"
        print(f"  {name:<28}{rate}{memory}", flush=True)
