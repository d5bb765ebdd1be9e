"""Tokens per second of our engine against transformers' two ways to generate: same weights, same prompts, one run.

    python benchmarks/generation/bench_batches.py              # transformers==5.23.0 joins where it is installed

Lengths are equal (32 prompt tokens, 64 new ones), or mixed (16..256 each, heavy-tailed). `generate` of transformers
takes batch after batch in the order of the requests, pads each to its longest prompt and runs it to its longest answer,
since it has one limit for a batch. Its continuous batching gives each request its own limit, as ours does. Greedy
answers must be equal token by token.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.generation.command import parse, record
from benchmarks.generation.compare import available, compare_load, running
from benchmarks.generation.load import GPT2, SMALL, WIDE_VOCABULARY, Load, size_name
from benchmarks.stages.report import show
from benchmarks.stages.work import Size

CONTENDERS = ("ours", "transformers", "continuous")
SHORT, LONG = (32, 32), (16, 256)
EQUAL_AT_8, MIXED = 3.0, 5.0
"""Aims: times the rate of `generate`."""


def equal(rows: int, *, new: int = 64, sampled: bool = False) -> Load:
    return Load(rows, rows, SHORT, (new, new), sampled)


LOADS: dict[Size, tuple[Load, ...]] = {
    SMALL: (
        equal(1), equal(8), equal(32), Load(32, 8, LONG, LONG), Load(64, 32, LONG, LONG),
        equal(8, sampled=True), equal(32, sampled=True), Load(32, 8, LONG, LONG, True),
    ),
    WIDE_VOCABULARY: (equal(1), equal(8), equal(32), Load(64, 32, LONG, LONG), equal(8, sampled=True)),
    GPT2: (equal(1, new=16), equal(8, new=16), equal(32, new=16), Load(16, 8, (16, 128), (8, 64))),
}


def name_of(load: Load) -> str:
    """How a load is called in a case."""
    drawn = "sampled" if load.sampled else "greedy"
    if not load.mixed:
        return f"batch {load.rows}, {load.prompt_tokens[0]} + {load.new_tokens[0]} tokens, {drawn}"
    lengths = " + ".join(f"{low}..{high}" for low, high in (load.prompt_tokens, load.new_tokens))
    return f"batch {load.rows}, {load.requests} requests of {lengths} tokens, {drawn}"


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run all cases, print them and write the result file; returns the rows."""
    options = parse("batches", arguments, rounds=3)
    names = available(CONTENDERS)
    rows: list[dict[str, Any]] = []
    for size, loads in LOADS.items():
        cases = {f"{size_name(size)}, {name_of(load)}": load for load in loads}
        cases = {case: load for case, load in cases.items() if options.only in case}
        if not cases:
            continue
        with running(names, size, options.folder, options.threads) as contenders:
            for case, load in cases.items():
                print(case, file=sys.stderr, flush=True)
                # Calls of equal lengths on a small model are short: two of them in each round. Others take seconds.
                sizes = {"warmup": 0 if load.mixed else 1, "calls": 1 if load.mixed or size == GPT2 else 2}
                found = compare_load(contenders, load, size.vocab, rounds=options.rounds, **sizes)
                if "transformers" in found["rivals"] and (load.mixed or load.rows == 8):
                    found["rivals"]["transformers"]["goal"] = MIXED if load.mixed else EQUAL_AT_8
                rows.append({"case": case, "vocab": size.vocab, **found})
    show(rows)
    record("batches", options, rows, not_measured=[name for name in CONTENDERS if name not in names])
    return rows


if __name__ == "__main__":
    main()
