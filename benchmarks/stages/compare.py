"""Compares the contenders at one stage: rounds of fresh processes, interleaved, medians and ratios from the same run.

    python benchmarks/stages/bench_sft.py                     # all installed contenders, both vocabularies
    python benchmarks/stages/bench_sft.py --vocab 8192 --rounds 5

The peers join where they are installed: trl==1.12.0 (the last with a PPO trainer) and transformers==5.23.0.

What makes the comparison fair, and where it cannot be equal:

* Same model size, float32, threads; no dropout, no activation checkpointing; AdamW in its fused form.
* Same files. In SFT and reward the batches hold the same rows in the same order for every contender, with equally many
  sequences in a pass. Tokens are real ones (prompt, answer, end of text), never padding, and must agree.
* Each contender logs, shuffles, collates and checks as it does for its users. TRL's SFT loss is its chunked one and
  reports entropy and accuracy; its packing needs FlashAttention, so on the CPU it pads.
* TRL's reward trainer takes pairs: with K answers it runs each answer K - 1 times. K = 2 is equal work; K = 6 is the
  same labels, and tokens count each answer once.
* PPO is one epoch and one optimizer step an iteration, with a frozen reference, a reward model and a value model, all
  of the same size, from random weights, which seldom end an answer early.
* Every process runs under the same GOMP_SPINCOUNT (see instructgpt_fast/__init__.py): how long threads spin is a
  setting of the machine, not of the work.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.stages.work import Size, Work

ROOT = Path(__file__).resolve().parents[2]
CONTENDERS = {
    "pretrain": ("ours", "plain", "transformers"),
    "sft": ("ours", "plain", "trl"),
    "reward": ("ours", "plain", "trl"),
    "ppo": ("ours", "plain", "trl"),
    "generate": ("ours", "plain", "transformers"),
}
CASES: Mapping[str, Sequence[tuple[str, Mapping[str, int]]]] = {
    "pretrain": (("8 x 512 tokens", {}),),
    "sft": (("16 examples", {}),),
    "reward": (
        ("12 prompts, K = 2", {"answers": 2, "reward_batch": 12}),
        ("4 prompts, K = 6", {"answers": 6, "reward_batch": 4}),
    ),
    "ppo": (("32 episodes, 48 new tokens", {}),),
    "generate": (
        ("1 row, 32 + 64 tokens", {"generate_batch": 1}), ("32 rows, 32 + 64 tokens", {"generate_batch": 32}),
    ),
}
GOALS = {("sft", "trl"): 1.5, ("ppo", "trl"): 3.0, ("generate", "transformers"): 2.0}
"""Times the rival's tokens per second, at no more memory."""
TOKENS_AGREE = {"ppo": 0.1}  # answers are each contender's own; everywhere else one percent, for merges across a seam
SPIN = "10000"


@dataclass(frozen=True)
class Round:
    """What one process reported, warm-up steps dropped."""

    seconds: Sequence[float]
    tokens: Sequence[int]
    peak_bytes: int
    import_bytes: int

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each step."""
        return [n / s for n, s in zip(self.tokens, self.seconds, strict=True)]


def installed(contender: str) -> bool:
    """Whether everything that a contender runs on is there: a trainer of transformers needs more than transformers."""
    packages = () if contender in ("ours", "plain") else (contender, "accelerate", "datasets")
    return all(importlib.util.find_spec(package) is not None for package in packages)


def run_round(contender: str, stage: str, work: Work, steps: int, warmup: int) -> Round:
    """One process of `warmup + steps` steps. Raises SystemExit with the process's last words when it fails."""
    environment = {"GOMP_SPINCOUNT": SPIN, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    call = [sys.executable, "-m", "benchmarks.stages.contender", contender, stage, "--steps", str(warmup + steps)]
    call += ["--work", work.to_json()]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contender} {stage}: the process failed ({done.returncode}):\n{done.stderr[-3000:]}")
    report = json.loads(done.stdout.splitlines()[-1])
    return Round(
        report["seconds"][warmup:], report["tokens"][warmup:], report["peak_bytes"], report["import_bytes"]
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile."""
    ordered = sorted(values)
    p10, p90 = (ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9))
    return {"median": statistics.median(ordered), "p10": p10, "p90": p90}


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Figures of one contender over all steps of all rounds; memory is the median of the rounds."""
    seconds = [s for r in rounds for s in r.seconds]
    rates = [x for r in rounds for x in r.rates]
    return {
        "step_seconds": spread(seconds), "tokens_per_second": spread(rates),
        "tokens_per_step": statistics.mean(n for r in rounds for n in r.tokens),
        "peak_bytes": statistics.median(r.peak_bytes for r in rounds),
        "import_bytes": statistics.median(r.import_bytes for r in rounds),
        "peak_above_import_bytes": statistics.median(r.peak_bytes - r.import_bytes for r in rounds),
        "steps": len(seconds), "rounds": len(rounds),
    }


def against(ours: Sequence[Round], rival: Sequence[Round]) -> dict[str, float]:
    """How many times the rival's rate, round by round (neighbours in time), and our peak memory as a share of its."""
    ratios = [statistics.median(a.rates) / statistics.median(b.rates) for a, b in zip(ours, rival, strict=True)]
    own, other = summary(ours), summary(rival)
    return {
        "speedup": statistics.median(ratios), "speedup_min": min(ratios), "speedup_max": max(ratios),
        "memory_share": own["peak_bytes"] / other["peak_bytes"],
        "memory_share_above_import": own["peak_above_import_bytes"] / max(1.0, other["peak_above_import_bytes"]),
    }


def check_tokens(stage: str, rounds: Mapping[str, Sequence[Round]]) -> None:
    """Raise SystemExit when contenders did not work on as many tokens: their rates could not be compared."""
    means = {name: summary(found)["tokens_per_step"] for name, found in rounds.items()}
    low, high = min(means.values()), max(means.values())
    if high - low > TOKENS_AGREE.get(stage, 0.01) * high:
        raise SystemExit(f"{stage}: contenders must work on equally many tokens a step, got {means}")


def compare_case(
    stage: str, work: Work, names: Sequence[str], *, rounds: int, steps: int, warmup: int
) -> dict[str, Any]:
    """Run all rounds of one case; the order within a round moves on by one each time."""
    found: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            found[name].append(run_round(name, stage, work, steps, warmup))
            rate = statistics.median(found[name][-1].rates)
            print(f"  round {number + 1}/{rounds} {name:13}{rate:12,.0f} tokens/s", file=sys.stderr, flush=True)
    check_tokens(stage, found)
    versus = {name: against(found["ours"], found[name]) for name in names if name != "ours" and "ours" in names}
    for name, figures in versus.items():
        if (stage, name) in GOALS:
            figures["goal"] = GOALS[stage, name]
    return {"contenders": {name: summary(found[name]) for name in names}, "rivals": versus}


def parse(stage: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Compares contenders at {stage}.")
    parser.add_argument("--vocab", type=int, nargs="+", default=[8192, 50257])
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each contender")
    parser.add_argument("--steps", type=int, default=5, help="timed steps, iterations or calls in each process")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those, not counted")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS[stage], help="by default all that are installed")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "benchmarks", help="files to work on, kept")
    parser.add_argument("--no-record", action="store_true", help="print only; write no file under benchmarks/results")
    return parser.parse_args(arguments)


def main(stage: str, arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Compare at one stage, print the figures and write benchmarks/results/<device>/; returns the rows."""
    from benchmarks.stages.files import write_work
    from benchmarks.stages.report import record, show

    options = parse(stage, arguments)
    names = options.contenders or [name for name in CONTENDERS[stage] if installed(name)]
    rows = []
    for vocab in options.vocab:
        base = Work(Size(vocab), options.folder / f"vocab-{vocab}", threads=options.threads)
        write_work(base)
        for label, changes in CASES[stage]:
            print(f"{stage}, vocabulary {vocab}, {label}", file=sys.stderr, flush=True)
            sizes = {name: getattr(options, name) for name in ("rounds", "steps", "warmup")}
            figures = compare_case(stage, replace(base, **changes), names, **sizes)
            rows.append({"case": f"{stage}: {label}, vocabulary {vocab}", "vocab": vocab, **figures})
    show(rows)
    if not options.no_record:
        settings = {name: getattr(options, name) for name in ("rounds", "steps", "warmup", "threads")}
        absent = [name for name in CONTENDERS[stage] if name not in names]
        print(f"written to {record(stage, rows, {**settings, 'gomp_spincount': SPIN, 'not_measured': absent})}")
    return rows
