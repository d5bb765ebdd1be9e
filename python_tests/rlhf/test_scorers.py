"""A Python function in the place of the reward model: what it is given and what it must return."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from instructgpt_fast.errors import TrainingError
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.rlhf.scorers import RewardFunction, Scorer, function_scorer, reward_model_scorer
from instructgpt_fast.rlhf.scoring import rollout_scores

from .tiny import tiny_gpt, tiny_rollout, tiny_scalar


def words(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))


def scorer(function: RewardFunction) -> Scorer:
    return function_scorer(function, words)


@pytest.fixture(scope="module")
def rollout() -> Rollout:
    return tiny_rollout(tiny_gpt())


def test_the_function_sees_texts_in_order(rollout: Rollout) -> None:
    def lengths(prompts: list[str], responses: list[str]) -> list[float]:
        assert prompts == [words(p) for p in rollout.prompts]
        assert responses == [words(r) for r in rollout.responses]
        return [len(r.split()) for r in responses]

    scores = scorer(lengths)(rollout)
    assert scores.dtype == torch.float32
    assert scores.tolist() == [len(r) for r in rollout.responses]


def test_a_wrong_number_of_scores_is_refused(rollout: Rollout) -> None:
    with pytest.raises(TrainingError, match=r"one score a response, 4 of them, got 1"):
        scorer(lambda prompts, responses: [1.0])(rollout)


def test_a_score_that_is_no_number_is_refused(rollout: Rollout) -> None:
    with pytest.raises(TrainingError, match="every score must be finite, got nan"):
        scorer(lambda prompts, responses: [0.0, math.nan, 0.0, 0.0])(rollout)


def test_a_reward_model_scores_each_response(rollout: Rollout) -> None:
    model = tiny_scalar()
    scores = reward_model_scorer(model, max_tokens=1000)(rollout)
    assert torch.equal(scores, rollout_scores(model, rollout, max_tokens=1000))
    assert scores.shape == (4,)
