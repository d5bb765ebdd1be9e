"""What the models of a PPO run say to its prompts: answers, and their scores, rewards, advantages and returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from instructgpt_fast.errors import TrainingError
from instructgpt_fast.evaluate import pack_tokens
from instructgpt_fast.generate import SamplingConfig
from instructgpt_fast.rlhf.advantages import shaped_advantages
from instructgpt_fast.rlhf.rewards import shape_scores
from instructgpt_fast.rlhf.rollout import Rollout, collect
from instructgpt_fast.rlhf.scoring import rollout_logprobs, rollout_values
from instructgpt_fast.rlhf.update import Experience, from_rollout
from instructgpt_fast.train.guard import stop_unless_finite

if TYPE_CHECKING:
    from instructgpt_fast.train.ppo import PpoConfig
    from instructgpt_fast.train.ppo_parts import PpoParts

__all__ = ["Weighed", "answer", "weigh"]


@dataclass(frozen=True)
class Weighed:
    """A rollout with what its models say of it.

    scores, penalised, shaped: f32 [B]: the scorer's, after the penalty for a missing EOS, as used in the reward.
    kl: f32 [B, R], nats a token, 0 where uncounted.
    """

    scores: Tensor
    penalised: Tensor
    shaped: Tensor
    kl: Tensor
    experience: Experience


def answer(
    config: PpoConfig,
    parts: PpoParts,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    iteration: int,
    run_dir: Path,
) -> Rollout:
    """Let the live policy answer prompts; one whose logits are no numbers is stopped as a loss is."""
    sampling = SamplingConfig(max_new_tokens=config.max_response_tokens, temperature=config.temperature)
    try:
        return collect(
            parts.policy, prompts, sampling, eos_id=parts.eos_id, seeds=seeds, batch_size=config.rollout_batch_size,
            engine=parts.engine,
        )
    except TrainingError:
        tokens, cu_seqlens = pack_tokens(prompts, parts.policy.lm_weight.device)
        stop_unless_finite(
            run_dir, iteration, {"policy logits": math.nan}, modules={"policy": parts.policy},
            batch={"tokens": tokens, "cu_seqlens": cu_seqlens},
            replay=lambda: parts.policy(tokens, cu_seqlens=cu_seqlens),
        )
        raise


def weigh(config: PpoConfig, parts: PpoParts, rollout: Rollout, iteration: int, run_dir: Path) -> Weighed:
    """Score a rollout, hold it against the reference, and work out rewards, advantages and returns.

    Raises TrainingError when a score, a log-probability or a value is not finite.
    """
    limit = config.max_scoring_tokens
    scores = parts.score(rollout)
    ref = rollout_logprobs(parts.reference, rollout, temperature=config.temperature, max_tokens=limit)
    values = rollout_values(parts.value_model, rollout, max_tokens=limit)
    old = rollout.logprobs
    if not parts.trust_sampler:
        old = rollout_logprobs(parts.policy, rollout, temperature=config.temperature, max_tokens=limit)
    stop_unless_finite(
        run_dir, iteration,
        {"score": scores.sum().item(), "reference log-probability": ref.sum().item(), "value": values.sum().item()},
        modules=parts.models, batch=rollout.tensors(),
    )
    penalised, shaped = shape_scores(
        scores, rollout.finished, missing_eos_penalty=config.missing_eos_penalty or 0.0,
        whiten=config.whiten_scores, clip=config.score_clip,
    )
    kl, _, advantages, returns = shaped_advantages(
        old, ref, shaped, values, rollout.loss_mask, kl_coef=parts.kl_coef, gamma=config.gamma, lam=config.lam,
        whiten_rewards=config.whiten_rewards,
    )
    experience = from_rollout(
        rollout, old_logprobs=old, ref_logprobs=ref, old_values=values, advantages=advantages, returns=returns
    )
    return Weighed(scores, penalised, shaped, kl, experience)
