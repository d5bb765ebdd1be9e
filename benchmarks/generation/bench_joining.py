"""What continuous batching gains: requests join as others end, against whole batches, with the same engine.

    python benchmarks/generation/bench_joining.py

Lengths are mixed (16..256 each, heavy-tailed). Whole batches: the engine is given as many requests as it decodes at the
same time, and the next ones when all of these have ended; rows that end leave in both.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.generation.command import model_of, parse, record, show, timed
from benchmarks.generation.load import SMALL, WIDE_VOCABULARY, Load, size_name
from benchmarks.generation.ours import NEVER, requests, room
from benchmarks.stages.work import Size
from instructgpt_fast.generate import Engine
from instructgpt_fast.model import GPT

CASES: Sequence[tuple[Size, Load]] = (
    (SMALL, Load(64, 8, (16, 256), (16, 256))), (SMALL, Load(128, 32, (16, 256), (16, 256))),
    (WIDE_VOCABULARY, Load(64, 8, (16, 256), (16, 256))),
)


def ways(model: GPT, load: Load) -> dict[str, Callable[[Any], list[list[int]]]]:
    """The two ways to serve a load; each returns the tokens of every request."""
    wanted = requests(load, model.config.vocab_size)

    def batches(size: int) -> list[list[int]]:
        engine = Engine(model, eos_id=NEVER, max_rows=load.rows, cache_tokens=room(load))
        parts = [wanted[first : first + size] for first in range(0, len(wanted), size)]
        return [list(answers[0].tokens) for part in parts for answers in engine.run(part)]

    return {"whole batches": lambda _: batches(load.rows), "joining": lambda _: batches(load.requests)}


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run all cases, print them and write the result file; returns the rows."""
    options = parse("joining", arguments, rounds=3)
    rows: list[dict[str, Any]] = []
    for size, load in CASES:
        case = f"{size_name(size)}, batch {load.rows}, {load.requests} requests"
        if options.only not in case:
            continue
        work = ways(model_of(size, options), load)
        answers = {name: call(None) for name, call in work.items()}
        if answers["joining"] != answers["whole batches"]:
            raise SystemExit(f"{case}: a request's answer must not depend on what runs beside it, got two")
        figures = timed(work, dict.fromkeys(work, sum(load.limits())), options.rounds)
        rows.append({"case": case, "batch": load.rows, "contenders": figures})
        show(case, figures)
    record("joining", options, rows)
    return rows


if __name__ == "__main__":
    main()
