"""Measuring a policy on fixed prompts."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast.rlhf.measure import PolicyMeasure, measure_policy
from instructgpt_fast.rlhf.rollout import Rollout

from .tiny import EOS, PROMPTS, tiny_gpt


def score_length(rollout: Rollout) -> torch.Tensor:
    return rollout.loss_mask.sum(1).float()


def measured(seed_of_policy: int, **more: int) -> PolicyMeasure:
    return measure_policy(
        tiny_gpt(seed_of_policy), tiny_gpt(0), PROMPTS * 8, score_length, eos_id=EOS, max_new_tokens=10, **more
    )


def test_a_policy_against_itself_has_no_kl() -> None:
    found = measured(0)
    assert abs(found.kl) < 1e-4  # sampler and trainer differ by float32 rounding, 10 tokens a response
    assert found.num_prompts == 32
    assert found.score == pytest.approx(found.response_length)
    assert 0.0 < found.eos_rate < 1.0
    assert found.score_error > 0.0


def test_another_policy_is_away_and_equal_calls_are_equal() -> None:
    assert measured(5).kl > 0.5
    assert measured(5) == measured(5)
    # Neither the decoding batch nor the scoring chunk changes a draw; sums may round otherwise.
    assert measured(5, batch_size=3, max_tokens=20).score == measured(5).score
    assert measured(5, seed=1).score != measured(5).score
