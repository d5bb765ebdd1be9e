"""Logged figures by hand, under the names that TRL users know."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast.ops import PpoLoss
from instructgpt_fast.rlhf.advantages import explained_variance
from instructgpt_fast.rlhf.kl import response_kl
from instructgpt_fast.rlhf.metrics import correlation, rollout_metrics, sum_stats, update_metrics
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.rlhf.update import from_rollout

MASK = torch.tensor([[True, True, True], [True, False, False]])
LOGPROBS = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 0.0, 0.0]])
REFERENCE = torch.tensor([[-1.5, -2.0, -4.0], [-3.0, 0.0, 0.0]])


def test_rollout_metrics_by_hand() -> None:
    rollout = Rollout([[1], [2, 3]], [[4, 5, 9], [6]], torch.tensor([True, False]), MASK, LOGPROBS)
    zero = torch.zeros(2, 3)
    experience = from_rollout(
        rollout, old_logprobs=LOGPROBS, ref_logprobs=REFERENCE, old_values=zero, advantages=zero, returns=zero
    )
    kl = response_kl(LOGPROBS, REFERENCE, MASK)
    scores, shaped = torch.tensor([3.0, 1.0]), torch.tensor([2.0, 1.0])
    found = rollout_metrics(rollout, kl, scores, shaped, experience, kl_coef=0.1, raw_scores=torch.tensor([3.0, 2.0]))
    # Row 0: kl 0.5 + 0 + 1, row 1: -1. Everything is exact in binary except the products with 0.1.
    assert found["objective/kl"] == 0.25
    assert found["objective/entropy"] == 5.0
    assert found["objective/non_score_reward"] == pytest.approx(-0.025)
    assert found["objective/scores"] == 2.0
    assert found["objective/rlhf_reward"] == pytest.approx(1.5 - 0.025)
    assert found["val/num_eos_tokens"] == 1
    assert found["val/eos_rate"] == 0.5
    assert found["val/response_length"] == 2.0
    assert found["val/response_length_std"] == 1.0
    assert found["objective/kl_per_token"] == 0.125
    assert found["val/score_length_correlation"] == pytest.approx(1.0), "the longer answer has the higher raw score"
    assert found["objective/kl_coef"] == 0.1


def test_micro_batches_are_summed_and_minibatches_averaged() -> None:
    first = sum_stats([PpoLoss(torch.tensor(0.5), torch.arange(8.0)), PpoLoss(torch.tensor(0.25), torch.ones(8))])
    assert float(first.loss) == 0.75
    assert first.stats.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    second = PpoLoss(torch.tensor(0.0), torch.tensor([3.0, 2, 3, 0, 5, 6, 9, 8]))
    found = update_metrics([first, second])
    assert found["loss/policy_avg"] == 2.0
    assert found["loss/value_avg"] == 2.0
    assert found["policy/entropy_avg"] == 3.0
    assert found["policy/clipfrac_avg"] == 2.0
    assert found["val/clipfrac_avg"] == 5.0
    assert found["policy/approxkl_avg"] == 6.0
    assert found["val/ratio"] == 8.0
    assert found["val/ratio_var"] == 2.0  # of 7 and 9, with one degree of freedom as in TRL
    assert update_metrics([first])["val/ratio_var"] == 0.0


def test_explained_variance() -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0], [4.0, 99.0, 99.0]])
    assert explained_variance(returns, returns, MASK) == 1.0
    assert explained_variance(torch.full((2, 3), 7.0), returns, MASK) == 0.0
    half = torch.tensor([[1.5, 1.5, 3.5], [3.5, 0.0, 0.0]])  # errors of -+0.5 about a variance of 1.25
    assert explained_variance(half, returns, MASK) == pytest.approx(1 - 0.25 / 1.25)
    assert explained_variance(half, torch.ones(2, 3), MASK) == 0.0


def test_correlation() -> None:
    lengths = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert correlation(-2.0 * lengths, lengths) == pytest.approx(-1.0)
    assert correlation(torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])) == 0.0
    assert correlation(torch.full((4,), 0.3), lengths) == 0.0, "scores that do not vary follow nothing"
