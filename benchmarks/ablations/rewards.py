"""Reward models on grouped and on shuffled pairs, one pass and more (Ouyang et al. 2022, section 3.5, footnote 5).

Both train on the same comparisons of the same prompts. Grouped, all pairs of a prompt are one batch element; shuffled,
every pair is one, so an answer takes part in K - 1 updates a pass. Batches hold equally many elements.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from benchmarks.ablations.findings import Finding, finding
from benchmarks.ablations.finished import Quickstart
from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.evaluate.scoring import score_sequences
from instructgpt_fast.quickstart.material import write_rows
from instructgpt_fast.train import train

NAMES = {True: "grouped", False: "shuffled"}


@dataclass(frozen=True)
class Fit:
    """How well scores order ranked answers; losses (nats a pair) and shares of pairs in order, one for each prompt."""

    losses: torch.Tensor
    correct: torch.Tensor
    pairs: torch.Tensor

    @property
    def loss(self) -> float:
        """Mean over prompts of the mean over their pairs: eq. 1 of the paper."""
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float:
        """Share of all pairs."""
        return float((self.correct * self.pairs).sum() / self.pairs.sum())

    @property
    def accuracy_error(self) -> float:
        """Standard error with the prompt as the sampling unit."""
        residuals = (self.correct - self.accuracy) * self.pairs
        return float(residuals.square().sum().sqrt() / self.pairs.sum())


@dataclass(frozen=True)
class RewardModel:
    """One trained reward model, judged on its training prompts and on held-out ones."""

    grouped: bool
    epochs: int
    seed: int
    training: Fit
    held_out: Fit
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        row: dict[str, Any] = {"pairs": NAMES[self.grouped], "epochs": self.epochs, "seed": self.seed}
        for name, fit in (("training", self.training), ("held_out", self.held_out)):
            row[name] = {"loss": fit.loss, "accuracy": fit.accuracy, "accuracy_error": fit.accuracy_error}
        return {**row, "seconds": self.seconds}


def fit(model: Loaded, rows: Sequence[dict[str, Any]]) -> Fit:
    """Judge a reward model on ranked answers; prompts whose answers are all tied are left out."""
    kept = [row for row in rows if len(set(row["ranks"])) > 1]
    sequences = [
        model.tokenizer.encode_example(row["prompt"], text, model.prompt_format).tokens
        for row in kept for text in row["completions"]
    ]
    scores = score_sequences(model.model, sequences).double()
    losses, correct, pairs = [], [], []
    for row, own in zip(kept, scores.split([len(row["ranks"]) for row in kept]), strict=True):
        ranks = torch.tensor(row["ranks"])
        margins = (own[:, None] - own[None, :])[ranks[:, None] < ranks[None, :]]
        losses.append(functional.softplus(-margins).mean())
        correct.append(((margins > 0).double() + 0.5 * (margins == 0)).mean())
        pairs.append(float(margins.numel()))
    return Fit(torch.stack(losses), torch.stack(correct), torch.tensor(pairs, dtype=torch.float64))


def train_reward_models(
    source: Quickstart, output: Path, seeds: Sequence[int], prompts: int, epochs: Sequence[int],
    say: Callable[[str], None],
) -> list[RewardModel]:
    """Train grouped and shuffled on the first `prompts` comparisons, once for each seed and length."""
    rows = source.material.rows(source.material.comparisons)[:prompts]
    held_out = source.material.rows(source.material.validation_comparisons)
    data = output / "comparisons.jsonl"
    output.mkdir(parents=True, exist_ok=True)
    write_rows(data, rows)
    models = []
    for length in epochs:
        for grouped in (True, False):
            for seed in seeds:
                folder = output / f"reward-{NAMES[grouped]}-{length}-seed-{seed}"
                options = source.options(
                    "reward", folder, seed, data=str(data), grouped=grouped, num_train_epochs=float(length)
                )
                started = time.monotonic()
                loaded = load_model(train(options).checkpoint)
                seconds = time.monotonic() - started
                made = RewardModel(grouped, length, seed, fit(loaded, rows), fit(loaded, held_out), seconds)
                models.append(made)
                say(
                    f"{NAMES[grouped]}, {length} epochs, seed {seed}: loss {made.training.loss:.3f} in training, "
                    f"{made.held_out.loss:.3f} held out ({seconds:.0f} s)"
                )
    return models


def reward_findings(models: Sequence[RewardModel]) -> list[Finding]:
    """Shuffled against grouped after each length; the loss differences are paired by held-out prompt."""
    found = []
    source = "footnote 5"
    for length in sorted({model.epochs for model in models}):
        grouped, shuffled = (
            [m for m in models if m.epochs == length and m.grouped is kind] for kind in (True, False)
        )
        both = list(zip(shuffled, grouped, strict=True))
        epochs = f"{length} epoch{'s' if length > 1 else ''}"
        losses = [s.held_out.losses - g.held_out.losses for s, g in both]
        found.append(finding(
            f"shuffled, {epochs}: held-out loss above grouped", source, "nats",
            [float(d.mean()) for d in losses], [float(d.std()) / math.sqrt(len(d)) for d in losses],
        ))
        found.append(finding(
            f"shuffled, {epochs}: held-out accuracy below grouped", source, "share of pairs",
            [g.held_out.accuracy - s.held_out.accuracy for s, g in both],
            [math.hypot(g.held_out.accuracy_error, s.held_out.accuracy_error) for s, g in both],
        ))
        found.append(finding(
            f"shuffled, {epochs}: held-out loss further above training loss than grouped", source, "nats",
            [_gap(s) - _gap(g) for s, g in both], [math.hypot(_gap_error(s), _gap_error(g)) for s, g in both],
        ))
    return found


def _gap(model: RewardModel) -> float:
    return model.held_out.loss - model.training.loss


def _gap_error(model: RewardModel) -> float:
    return math.hypot(*(float(f.losses.std()) / math.sqrt(len(f.losses)) for f in (model.training, model.held_out)))
