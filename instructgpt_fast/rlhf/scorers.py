"""Where scores come from: a frozen reward model, or any Python function of prompts and responses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from instructgpt_fast.errors import TrainingError
from instructgpt_fast.model import ScalarModel
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.rlhf.scoring import rollout_scores

__all__ = ["RewardFunction", "Scorer", "function_scorer", "reward_model_scorer"]

# Scores of a rollout, f32 [B].
Scorer = Callable[[Rollout], Tensor]

# Prompts and responses as text, EOS left out -> one number each, higher is better.
RewardFunction = Callable[[list[str], list[str]], Sequence[float]]


def reward_model_scorer(model: ScalarModel, *, max_tokens: int) -> Scorer:
    """Score with a reward model, at most max_tokens tokens in one forward and without gradient."""

    def score(rollout: Rollout) -> Tensor:
        return rollout_scores(model, rollout, max_tokens=max_tokens)

    return score


def function_scorer(
    function: RewardFunction, decode: Callable[[list[int]], str]
) -> Scorer:
    """Score with a Python function of the texts; it stands where the reward model would.

    decode: token ids -> text without special tokens.
    The scorer raises TrainingError when the function returns another number of scores than it got responses, or one
    that is not a finite number.
    """

    def score(rollout: Rollout) -> Tensor:
        prompts = [decode(tokens) for tokens in rollout.prompts]
        responses = [decode(tokens) for tokens in rollout.responses]
        scores = [float(value) for value in function(prompts, responses)]
        if len(scores) != len(responses):
            raise TrainingError(
                f"reward_fn: must return one score a response, {len(responses)} of them, got {len(scores)}; "
                "return a list as long as its arguments."
            )
        for index, value in enumerate(scores):
            if not math.isfinite(value):
                raise TrainingError(
                    f"reward_fn: every score must be finite, got {value} for the response {responses[index]!r}; "
                    "return a finite number for any text, the empty one included."
                )
        return torch.tensor(scores, dtype=torch.float32, device=rollout.device)

    return score
