"""Rollout tokens per second of PPO: `rlhf.rollout.collect` against what TRL's PPO trainer draws its answers with.

    python benchmarks/generation/bench_rollouts.py                 # trl==1.12.0, the last with PPO, joins if installed

Answers end by themselves after 40 tokens on average and 128 at most, prompts have 16..128 tokens. Only tokens up to the
end of an answer count. TRL takes batch after batch and runs each until its last answer has ended; it also keeps the
logits of every token, from which its trainer computes the log-probabilities that ours come with.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.generation.command import parse, record
from benchmarks.generation.compare import available, compare_load, running
from benchmarks.generation.load import SMALL, WIDE_VOCABULARY, Load, size_name
from benchmarks.stages.report import show

CONTENDERS = ("ours", "trl")
SIZES = (SMALL, WIDE_VOCABULARY)
MEAN_TOKENS = 40.0
LOAD = Load(64, 32, (16, 128), (128, 128), sampled=True)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run all cases, print them and write the result file; returns the rows."""
    options = parse("rollouts", arguments, rounds=3)
    names = available(CONTENDERS)
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        case = f"{size_name(size)}, {LOAD.requests} episodes, batch {LOAD.rows}"
        if options.only not in case:
            continue
        print(case, file=sys.stderr, flush=True)
        with running(names, size, options.folder, options.threads, MEAN_TOKENS) as contenders:
            found = compare_load(contenders, LOAD, size.vocab, task="rollout", rounds=options.rounds, warmup=1)
        rows.append({"case": case, "vocab": size.vocab, **found})
    show(rows)
    record("rollouts", options, rows, not_measured=[name for name in CONTENDERS if name not in names])
    return rows


if __name__ == "__main__":
    main()
