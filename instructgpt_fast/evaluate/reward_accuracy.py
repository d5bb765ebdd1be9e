"""How often a reward model orders two answers as the labeler did, and how far its probabilities can be trusted.

Pairs of one prompt share their answers, so they are not independent: intervals treat the prompt as the sampling
unit (ratio estimator; Cochran 1977, Sampling Techniques, section 2.11).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from instructgpt_fast.errors import DataError
from instructgpt_fast.evaluate.intervals import Z95
from instructgpt_fast.evaluate.scoring import score_sequences
from instructgpt_fast.model import ScalarModel

BINS = 10  # of equal width over 0.5 .. 1, where the probability of the preferred answer lies


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
class CalibrationBin:
    """Pairs to which the model gives a probability from `low` to `high`, the upper end left out but in the last bin."""

    low: float
    high: float
    confidence: float  # mean probability that the model gives to the answer it prefers
    share: Accuracy  # how often the labeler preferred that answer too


@dataclass(frozen=True)
class Calibration:
    """The model's probabilities sigmoid(|margin|) against the labelers' choices; ties of the labeler are left out.

    bins: those that hold a pair, rising. error: the expected calibration error, sum over the bins of their share of
    the pairs times |confidence - share| (Guo et al. 2017, arXiv:1706.04599, eq. 3). log_loss: mean over all pairs of
    -log sigmoid(margin of the labeler's choice), in nats; log 2 = 0.693 is what a coin gets.
    """

    bins: tuple[CalibrationBin, ...]
    error: float
    log_loss: float


@dataclass(frozen=True)
class RewardAccuracy:
    """Accuracy over all pairs and by the number of answers K; margin and scores averaged over pairs and answers."""

    overall: Accuracy
    by_k: dict[int, Accuracy]
    mean_margin: float
    mean_score: float
    loss: float  # mean over prompts of the mean over their pairs of -log sigmoid(margin), eq. 1 of Ouyang et al. 2022
    calibration: Calibration


def reward_accuracy(model: ScalarModel, data: Sequence[RankedAnswers], *, batch_size: int = 32) -> RewardAccuracy:
    """Score every answer and compare all pairs of each prompt; ties of the labeler are left out.

    batch_size: answers in one forward. Raises DataError when no prompt has an ordered pair.
    """
    sequences = [sequence for item in data for sequence in item.sequences]
    scores = score_sequences(model, sequences, batch_size=batch_size).double()
    own = scores.split([len(item.ranks) for item in data])
    margins = [labeled_margins(found, torch.tensor(list(item.ranks))) for found, item in zip(own, data, strict=True)]
    used = [margin for margin in margins if margin.numel()]
    if not used:
        raise DataError("reward_accuracy: a prompt must have two answers of different rank, got none; check the ranks")
    by_k: dict[int, list[torch.Tensor]] = {}
    for margin, item in zip(margins, data, strict=True):
        if margin.numel():
            by_k.setdefault(len(item.ranks), []).append(margin)
    overall = _ordered_rightly(used)
    return RewardAccuracy(
        overall, {k: _ordered_rightly(by_k[k]) for k in sorted(by_k)}, float(torch.cat(used).mean()),
        float(scores.mean()), sum(float(functional.softplus(-margin).mean()) for margin in used) / len(used),
        calibration(used),
    )


def labeled_margins(scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Score of the better minus score of the worse answer, of each ordered pair of one prompt: f64 [pairs].

    scores: f64 [K]. ranks: int64 [K], 1 = best; pairs of equal rank are left out.
    """
    better = ranks[:, None] < ranks[None, :]
    return (scores[:, None] - scores[None, :])[better]


def calibration(margins: Sequence[torch.Tensor], *, bins: int = BINS) -> Calibration:
    """Compare probabilities with choices, in `bins` bins of equal width over 0.5 .. 1.

    margins: for each prompt f64 [pairs], score of the labeler's choice minus score of the other answer. A margin of 0
    counts as half a right choice at probability 0.5. Raises DataError when there is no pair.
    """
    every = torch.cat(list(margins)) if margins else torch.empty(0)
    if not every.numel():
        raise DataError("calibration: there must be a pair of answers of different rank, got none; check the ranks")
    confidences = torch.sigmoid(every.abs())
    place = ((confidences - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    prompt = torch.repeat_interleave(torch.tensor([margin.numel() for margin in margins]))
    right = (every > 0).double() + 0.5 * (every == 0).double()
    found: list[CalibrationBin] = []
    for index in place.unique().tolist():
        inside = place == index
        pairs = torch.bincount(prompt[inside], minlength=len(margins))
        good = torch.bincount(prompt[inside], weights=right[inside], minlength=len(margins))
        share = _accuracy(list(zip(good.tolist(), pairs.tolist(), strict=True)))
        low, high = (0.5 + edge / (2 * bins) for edge in (index, index + 1))
        found.append(CalibrationBin(low, high, float(confidences[inside].mean()), share))
    error = sum(part.share.pairs * abs(part.confidence - part.share.accuracy) for part in found) / every.numel()
    return Calibration(tuple(found), error, float(functional.softplus(-every).mean()))


def _ordered_rightly(margins: Sequence[torch.Tensor]) -> Accuracy:
    return _accuracy([
        (float((margin > 0).sum()) + 0.5 * float((margin == 0).sum()), margin.numel()) for margin in margins
    ])


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
