"""Compares contenders on one load: call by call in turns, answers held against ours, ratios round by round.

Tokens per second count useful tokens only: those that requests are for. A batch that is padded and run to its longest
answer computes more, and nobody asked for the rest.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.generation.contender import NEEDS, Call, Contender, Task
from benchmarks.generation.load import Load
from benchmarks.generation.weights import write_weights
from benchmarks.stages.compare import Round, against, installed, summary
from benchmarks.stages.work import Size

# Two ids may change places where their logits are nearer than what float32 sums of another order differ by.
TIE = 2e-4
# Sampled answers that end by themselves are as long as each contender draws them: sums of a few hundred such lengths.
DRAWN_LENGTHS_AGREE = 0.25


def available(names: Sequence[str]) -> list[str]:
    """Those whose libraries are installed."""
    return [name for name in names if installed(NEEDS.get(name, "ours"))]


def weights_path(folder: Path, size: Size, mean_tokens: float | None = None) -> Path:
    """Where the weights of one size are kept."""
    return folder / f"{size.layers}x{size.width}-{size.vocab}-{mean_tokens or 'endless'}.safetensors"


@contextlib.contextmanager
def running(
    names: Sequence[str], size: Size, folder: Path, threads: int, mean_tokens: float | None = None
) -> Iterator[dict[str, Contender]]:
    """Start the contenders on the same weights, and end them."""
    weights = weights_path(folder, size, mean_tokens)
    write_weights(weights, size, mean_tokens)
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Contender(name, weights, size, threads)) for name in names}


def compare_load(
    contenders: Mapping[str, Contender], load: Load, vocab: int, *, task: Task = "generate", rounds: int,
    warmup: int, calls: int = 1,
) -> dict[str, Any]:
    """All rounds of one load; the order within a round moves on by one each time.

    Raises SystemExit when the contenders' answers differ: in greedy text beyond ties, in sampled text by their lengths.
    """
    names = list(contenders)
    for number in range(warmup):
        for name in names:
            contenders[name].call(task, load, number)
    found: dict[str, list[list[Call]]] = {name: [] for name in names}
    ties = 0
    for number in range(rounds):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            found[name].append([contenders[name].call(task, load, number * calls + i) for i in range(calls)])
            rate = statistics.median(call.tokens / call.seconds for call in found[name][-1])
            print(f"  round {number + 1}/{rounds} {name:13}{rate:12,.0f} tokens/s", file=sys.stderr, flush=True)
        ties += check_answers({name: found[name][-1][-1].completions for name in names}, load, vocab, task, contenders)
    by_round = {name: [as_round(calls) for calls in found[name]] for name in names}
    if task == "rollout":
        check_lengths(by_round)
    return {
        "contenders": {name: summary(by_round[name]) for name in names},
        "rivals": {name: dict(against(by_round["ours"], by_round[name])) for name in names if name != "ours"},
        "requests": load.requests, "rows": load.rows, "useful_tokens": by_round["ours"][0].tokens[0], "ties": ties,
    }


def as_round(calls: Sequence[Call]) -> Round:
    """The calls of one round as the stage comparison's round."""
    return Round(
        [call.seconds for call in calls], [call.tokens for call in calls], max(call.peak_bytes for call in calls),
        calls[0].import_bytes,
    )


def check_answers(
    answers: Mapping[str, Sequence[Sequence[int]]], load: Load, vocab: int, task: Task,
    contenders: Mapping[str, Contender],
) -> int:
    """Raise SystemExit unless all answered every request alike; returns how many answers part at a tie.

    Greedy answers must be equal token by token, up to where two ids are equally likely (TIE). Sampled ones come from
    different generators: they must be as long as asked for, unless an end may be drawn.
    """
    ties = 0
    for name, given in answers.items():
        if len(given) != load.requests:
            raise SystemExit(f"{name}: each of {load.requests} requests needs an answer, got {len(given)}")
        for place, (answer, limit) in enumerate(zip(given, load.limits(), strict=True)):
            if task == "generate" and len(answer) != limit:
                raise SystemExit(f"{name}: answer {place} must have {limit} tokens, got {len(answer)}")
    if load.sampled or task == "rollout":
        return 0
    prompts = load.prompts(vocab)
    for name, given in answers.items():
        for place, (mine, other) in enumerate(zip(answers["ours"], given, strict=True)):
            parting = next((i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b), None)
            if parting is None:
                continue
            before = [*prompts[place], *mine[:parting]]
            gap = contenders["ours"].gap(before, mine[parting], other[parting])
            if gap > TIE:
                raise SystemExit(
                    f"{name}: answer {place} differs from ours at token {parting} ({other[parting]} against "
                    f"{mine[parting]}), whose logits are {gap:.2e} apart: the contenders do not compute the same"
                )
            ties += 1
    return ties


def check_lengths(rounds: Mapping[str, Sequence[Round]]) -> None:
    """Raise SystemExit when drawn answers are much longer with one contender: they would not be the same work."""
    means = {name: summary(found)["tokens_per_step"] for name, found in rounds.items()}
    low, high = min(means.values()), max(means.values())
    if high - low > DRAWN_LENGTHS_AGREE * high:
        raise SystemExit(f"rollouts must be about equally long, got {means} tokens a call")


def priority() -> str:
    """How this process is scheduled: what is measured beside others says so."""
    if not hasattr(os, "sched_getscheduler"):
        return "unknown"
    policy = os.sched_getscheduler(0)
    return "real time" if policy in (os.SCHED_RR, os.SCHED_FIFO) else "normal"
