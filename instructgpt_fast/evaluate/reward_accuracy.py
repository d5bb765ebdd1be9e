"""How often a reward model orders two answers as the labeler did, with a confidence interval.

Pairs of one prompt share their answers, so they are not independent: the interval treats the prompt as the sampling
unit (ratio estimator; Cochran 1977, Sampling Techniques, section 2.11).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from instructgpt_fast.errors import DataError
from instructgpt_fast.evaluate.scoring import score_sequences
from instructgpt_fast.model import ScalarModel

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class RankedAnswers:
    """One prompt with its K answers: `sequences` are prompt + answer + EOS as tokens, `ranks` 1 = best, equal = tie."""

    sequences: Sequence[Sequence[int]]
    ranks: Sequence[int]


@dataclass(frozen=True)
class Accuracy:
    """Share of ordered pairs that are scored in the labeler's order; equal scores count half."""

    accuracy: float
    half_width: float  # of the 95 % interval
    pairs: int
    prompts: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval, within 0 and 1."""
        return max(0.0, self.accuracy - self.half_width), min(1.0, self.accuracy + self.half_width)


@dataclass(frozen=True)
class RewardAccuracy:
    """Accuracy over all pairs and by the number of answers K; margin and scores averaged over pairs and answers."""

    overall: Accuracy
    by_k: dict[int, Accuracy]
    mean_margin: float
    mean_score: float
    loss: float  # mean over prompts of the mean over their pairs of -log sigmoid(margin), eq. 1 of Ouyang et al. 2022


def reward_accuracy(model: ScalarModel, data: Sequence[RankedAnswers], *, batch_size: int = 32) -> RewardAccuracy:
    """Score every answer and compare all pairs of each prompt; ties of the labeler are left out.

    batch_size: answers in one forward. Raises DataError when no prompt has an ordered pair.
    """
    sequences = [sequence for item in data for sequence in item.sequences]
    scores = score_sequences(model, sequences, batch_size=batch_size).double()
    correct: list[float] = []
    pairs: list[int] = []
    margins = losses = 0.0
    position = 0
    for item in data:
        own = scores[position:position + len(item.ranks)]
        position += len(item.ranks)
        good, count, margin, loss = _compare(own, torch.tensor(list(item.ranks)))
        correct.append(good)
        pairs.append(count)
        margins += margin
        losses += loss
    if not sum(pairs):
        raise DataError("reward_accuracy: a prompt must have two answers of different rank, got none; check the ranks")
    sizes = sorted({len(item.ranks) for item, count in zip(data, pairs, strict=True) if count})
    by_k = {
        k: _accuracy([(c, n) for c, n, item in zip(correct, pairs, data, strict=True) if len(item.ranks) == k])
        for k in sizes
    }
    overall = _accuracy(list(zip(correct, pairs, strict=True)))
    return RewardAccuracy(overall, by_k, margins / sum(pairs), float(scores.mean()), losses / overall.prompts)


def _compare(scores: torch.Tensor, ranks: torch.Tensor) -> tuple[float, int, float, float]:
    """(pairs in the labeler's order, ordered pairs, sum of margins, mean loss of the pairs) of one prompt."""
    better = ranks[:, None] < ranks[None, :]
    margin = (scores[:, None] - scores[None, :])[better]
    good = float((margin > 0).sum()) + 0.5 * float((margin == 0).sum())
    loss = float(functional.softplus(-margin).mean()) if margin.numel() else 0.0
    return good, margin.numel(), float(margin.sum()), loss


def _accuracy(counts: Sequence[tuple[float, int]]) -> Accuracy:
    used = [(good, pairs) for good, pairs in counts if pairs]
    total = sum(pairs for _, pairs in used)
    share = sum(good for good, _ in used) / total
    prompts = len(used)
    half_width = math.nan
    if prompts > 1:
        spread = sum((good - share * pairs) ** 2 for good, pairs in used)
        half_width = Z95 * math.sqrt(spread * prompts / (prompts - 1)) / total
    return Accuracy(share, half_width, total, prompts)
