"""The invariants of PPO, put to a run's own models and its first rollout before anything is trained."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from instructgpt_fast.rlhf.batch import pack
from instructgpt_fast.rlhf.invariants import (
    check_eos_counted,
    check_neighbours,
    check_reference,
    check_repeatable,
    check_reward_bias,
    check_sampler,
)
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.rlhf.scoring import rollout_logprobs, rollout_scores
from instructgpt_fast.rlhf.update import Experience

if TYPE_CHECKING:
    from instructgpt_fast.train.ppo import PpoConfig
    from instructgpt_fast.train.ppo_parts import PpoParts

__all__ = ["check_before_training"]


def check_before_training(config: PpoConfig, parts: PpoParts, rollout: Rollout, experience: Experience) -> None:
    """Raise TrainingError, naming the likely cause, when something that must hold before the first update does not.

    The order matters: dropout would also break every later check, so it is looked for first.
    """
    some = rollout.take(range(min(config.invariant_episodes, len(rollout))))
    batch = pack(some.prompts, some.responses, some.device)
    for name, module in parts.models.items():
        check_repeatable(name, functools.partial(_forward, module, batch.tokens, batch.cu_seqlens))
    check_eos_counted(rollout, parts.eos_id)
    check_neighbours(parts.policy, some, temperature=config.temperature)
    trainer = rollout_logprobs(
        parts.policy, some, temperature=config.temperature, max_tokens=config.max_scoring_tokens
    )
    check_sampler(some, trainer, parts.dtype)
    check_reference(experience.old_logprobs, experience.ref_logprobs, experience.loss_mask, parts.dtype)
    if parts.reward_model is not None and parts.demonstrations is not None:
        scores = rollout_scores(parts.reward_model, parts.demonstrations, max_tokens=config.max_scoring_tokens).double()
        error = scores.std(unbiased=False).item() / len(scores) ** 0.5
        check_reward_bias(scores.mean().item(), error, config.reward_bias_tolerance)


def _forward(module: nn.Module, tokens: Tensor, cu_seqlens: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(tokens, cu_seqlens=cu_seqlens)
    return found
