"""Scores: what the penalties do, by hand."""

from __future__ import annotations

import torch

from instructgpt_fast.rlhf.rewards import shape_scores


def test_missing_eos_costs_the_penalty() -> None:
    scores, finished = torch.tensor([1.0, 1.0]), torch.tensor([True, False])
    penalised, shaped = shape_scores(scores, finished, missing_eos_penalty=1.5)
    assert penalised.tolist() == [1.0, -0.5]
    assert torch.equal(penalised, shaped)
    assert scores.tolist() == [1.0, 1.0]


def test_scores_are_clipped_after_the_penalty() -> None:
    scores, finished = torch.tensor([5.0, -3.0, 0.5]), torch.tensor([True, False, True])
    penalised, shaped = shape_scores(scores, finished, missing_eos_penalty=1.0, clip=2.0)
    assert penalised.tolist() == [5.0, -4.0, 0.5]
    assert shaped.tolist() == [2.0, -2.0, 0.5]


def test_whitened_scores_have_mean_0_and_variance_1() -> None:
    torch.manual_seed(0)
    scores = torch.randn(64) * 7 + 3
    _, shaped = shape_scores(scores, torch.ones(64, dtype=torch.bool), whiten=True)
    assert abs(shaped.mean().item()) < 1e-6  # float32 rounding of a mean of 64
    assert abs(shaped.var(unbiased=False).item() - 1.0) < 1e-5
    assert torch.equal(shaped.argsort(), scores.argsort())
