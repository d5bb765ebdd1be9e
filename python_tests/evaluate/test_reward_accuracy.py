"""Accuracy of a reward model by hand, its interval, and its parts by K."""

from __future__ import annotations

import math
import random

import pytest
import torch

from instructgpt_fast.errors import DataError
from instructgpt_fast.evaluate import RankedAnswers, calibration, reward_accuracy, score_sequences
from instructgpt_fast.evaluate.reward_accuracy import _accuracy
from instructgpt_fast.model import GPTConfig, ScalarModel


@pytest.fixture(scope="module")
def model() -> ScalarModel:
    """Scores a sequence by its last token alone: token t scores t, whatever comes before."""
    torch.manual_seed(0)
    made = ScalarModel(GPTConfig(vocab_size=32, n_positions=8, n_layer=1, n_head=1, d_model=64))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if not name.endswith(("ln_f.weight", "ln_1.weight", "ln_2.weight")):
                parameter.zero_()
        # Without layers the final layer norm sees the embedding: +-1 patterns of mean 0 and variance 1 pass unchanged.
        for token in range(32):
            made.trunk.wte.weight[token] = torch.tensor([1.0, -1.0]).repeat(32)
            made.trunk.wte.weight[token, 2 * token:2 * token + 2] = torch.tensor([-1.0, 1.0])
        for token in range(32):
            made.head.weight[0, 2 * token] = -token / 4
            made.head.weight[0, 2 * token + 1] = token / 4
        made.head.bias.fill_(sum(range(32)) / 2)
    return made


def answers(*last: int) -> list[list[int]]:
    return [[1, 2, token] for token in last]


def test_the_model_of_these_tests(model: ScalarModel) -> None:
    scores = score_sequences(model, [[3, token] for token in range(32)], batch_size=5)
    # eps in the layer norm takes 5e-6 of each entry, and 500 of them sum up.
    assert torch.allclose(scores, torch.arange(32.0), atol=5e-3)


def test_by_hand(model: ScalarModel) -> None:
    data = [
        RankedAnswers(answers(9, 5, 1), [1, 2, 3]),         # 3 of 3
        RankedAnswers(answers(9, 5, 1), [3, 2, 1]),         # 0 of 3
        RankedAnswers(answers(4, 4), [1, 2]),               # equal scores: half of 1
        RankedAnswers(answers(8, 2, 2, 1), [1, 2, 2, 2]),   # ties of the labeler: 3 of 3
        RankedAnswers(answers(8, 2), [1, 1]),               # no pair
    ]
    found = reward_accuracy(model, data, batch_size=4)
    assert found.overall.accuracy == pytest.approx(6.5 / 10)
    assert (found.overall.pairs, found.overall.prompts) == (10, 4)
    assert {k: part.accuracy for k, part in found.by_k.items()} == pytest.approx({2: 0.5, 3: 0.5, 4: 1.0})
    margins = [4, 4, 8, -4, -4, -8, 0, 6, 6, 7]
    assert found.mean_margin == pytest.approx(sum(margins) / 10, abs=5e-3)
    assert found.mean_score == pytest.approx(61 / 14, abs=5e-3)
    per_prompt = [margins[0:3], margins[3:6], margins[6:7], margins[7:10]]
    losses = [sum(math.log1p(math.exp(-m)) for m in prompt) / len(prompt) for prompt in per_prompt]
    assert found.loss == pytest.approx(sum(losses) / 4, abs=5e-3)


def test_nothing_to_compare(model: ScalarModel) -> None:
    with pytest.raises(DataError, match="must have two answers of different rank"):
        reward_accuracy(model, [RankedAnswers(answers(1, 2), [1, 1])])


def test_no_interval_from_one_prompt(model: ScalarModel) -> None:
    part = reward_accuracy(model, [RankedAnswers(answers(3, 2, 1), [1, 2, 3])]).overall
    assert math.isnan(part.half_width)
    assert part.interval == (0.0, 1.0)


def test_single_pairs_have_the_binomial_interval() -> None:
    """With one pair a prompt the ratio estimator is the sample mean, with the n - 1 of its variance."""
    part = _accuracy([(1.0, 1)] * 70 + [(0.0, 1)] * 30)
    assert part.accuracy == pytest.approx(0.7)
    assert part.half_width == pytest.approx(1.96 * math.sqrt(0.7 * 0.3 / 99), rel=1e-4)
    assert part.interval == pytest.approx((0.7 - part.half_width, 0.7 + part.half_width))


def test_the_interval_holds_the_truth_for_dependent_pairs() -> None:
    """Pairs of a prompt agree or disagree together: an interval that took them as independent would be too narrow."""
    rng = random.Random(0)
    inside = narrow = 0
    for _ in range(400):
        counts = []
        for _ in range(60):
            pairs = rng.choice([6, 15, 36])
            counts.append((float(pairs if rng.random() < 0.7 else 0), pairs))
        part = _accuracy(counts)
        low, high = part.interval
        inside += low <= 0.7 <= high
        independent = 1.96 * math.sqrt(part.accuracy * (1 - part.accuracy) / part.pairs)
        narrow += abs(part.accuracy - 0.7) <= independent
    # 95 % of 400, give or take three standard errors of 1.1 % and the small-sample bias of the estimator.
    assert 0.90 <= inside / 400 <= 0.985
    assert narrow / 400 < 0.6


def direct_calibration(margins: list[float], bins: int) -> tuple[list[tuple[int, float, float]], float, float]:
    """(pairs, confidence, share) of each bin that holds a pair, calibration error and log loss, in plain Python."""
    cells: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
    for margin in margins:
        confidence = 1 / (1 + math.exp(-abs(margin)))
        index = min(int((confidence - 0.5) / 0.5 * bins), bins - 1)
        cells[index].append((confidence, 1.0 if margin > 0 else 0.0 if margin < 0 else 0.5))
    found = [
        (len(cell), sum(c for c, _ in cell) / len(cell), sum(r for _, r in cell) / len(cell)) for cell in cells if cell
    ]
    error = sum(pairs * abs(confidence - share) for pairs, confidence, share in found) / len(margins)
    return found, error, sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins)


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_calibration_equals_a_direct_computation(bins: int) -> None:
    rng = random.Random(1)
    prompts = [[rng.gauss(0.4, 2.0) for _ in range(rng.choice([1, 3, 6]))] for _ in range(200)]
    prompts[3][0], prompts[4][0] = 0.0, 40.0  # an equal score, and a probability of 1
    found = calibration([torch.tensor(margins, dtype=torch.float64) for margins in prompts], bins=bins)
    cells, error, log_loss = direct_calibration([margin for margins in prompts for margin in margins], bins)
    assert [(part.share.pairs, part.confidence, part.share.accuracy) for part in found.bins] == [
        (pairs, pytest.approx(confidence), pytest.approx(share)) for pairs, confidence, share in cells
    ]
    assert (found.error, found.log_loss) == (pytest.approx(error), pytest.approx(log_loss))
    assert all(part.low <= part.confidence <= part.high for part in found.bins)


def drawn(scale: float) -> list[torch.Tensor]:
    """Margins where a labeler orders with probability sigmoid(difference); the model says scale times that."""
    generator = torch.Generator().manual_seed(5)
    truth = torch.randn(20_000, generator=generator, dtype=torch.float64) * 1.5
    chosen = torch.rand(20_000, generator=generator, dtype=torch.float64) < torch.sigmoid(truth)
    return list(torch.where(chosen, truth, -truth).mul(scale).split(4))


def test_scores_that_are_calibrated_and_scores_that_are_too_sure() -> None:
    honest = calibration(drawn(1.0))
    # 2,000 pairs in a bin have a share known to 1 %.
    assert honest.error < 0.015
    inside = sum(abs(part.share.accuracy - part.confidence) <= part.share.half_width for part in honest.bins)
    assert inside >= len(honest.bins) - 2
    sure = calibration(drawn(3.0))
    assert sure.error > 0.1
    assert all(part.share.accuracy < part.confidence for part in sure.bins)
    assert honest.log_loss < calibration(drawn(0.3)).log_loss < sure.log_loss


def test_calibration_leaves_ties_of_the_labeler_out(model: ScalarModel) -> None:
    data = [RankedAnswers(answers(8, 2, 2), [1, 2, 2]), RankedAnswers(answers(8, 2), [1, 1])]
    found = reward_accuracy(model, data).calibration
    (only,) = found.bins
    assert (only.share.pairs, only.share.accuracy, only.high) == (2, 1.0, 1.0)
    assert found.log_loss == pytest.approx(math.log1p(math.exp(-6)), rel=5e-3)
    with pytest.raises(DataError, match="got none"):
        calibration([])
