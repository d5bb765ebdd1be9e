"""Gradients of one minibatch: the clipped PPO objective of the policy and the clipped error of the value model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from instructgpt_fast.model import GPT, ScalarModel
from instructgpt_fast.ops import PpoLoss, ppo_loss
from instructgpt_fast.rlhf.batch import pack, pad
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.rlhf.scoring import response_logprobs, response_values

__all__ = ["Experience", "PpoObjective", "from_rollout", "ppo_backward", "select"]


_PER_TOKEN = ("old_logprobs", "ref_logprobs", "old_values", "advantages", "returns")


@dataclass(frozen=True)
class PpoObjective:
    """The constants of the PPO loss (Schulman et al. 2017, arXiv:1707.06347, eq. 7 and 9)."""

    cliprange: float
    cliprange_value: float
    vf_coef: float
    temperature: float
    entropy_coef: float = 0.0


@dataclass(frozen=True)
class Experience:
    """A scored rollout, or some rows of one: everything a PPO update needs.

    prompts, responses: B token lists. loss_mask: bool [B, R]. Everything else: f32 [B, R], 0 where uncounted.
    """

    prompts: list[list[int]]
    responses: list[list[int]]
    loss_mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def num_tokens(self) -> int:
        """Counted tokens, the denominator of the losses."""
        return sum(map(len, self.responses))

    def tensors(self) -> dict[str, Tensor]:
        """What to keep of this batch when something in it is not finite."""
        batch = pack(self.prompts, self.responses)
        found = {"tokens": batch.tokens, "cu_seqlens": batch.cu_seqlens, "loss_mask": batch.loss_mask}
        return found | {name: getattr(self, name) for name in _PER_TOKEN}


def from_rollout(rollout: Rollout, **tensors: Tensor) -> Experience:
    """Join a rollout with its scored tensors (old_logprobs, ref_logprobs, old_values, advantages, returns)."""
    return Experience(rollout.prompts, rollout.responses, rollout.loss_mask, **tensors)


def select(experience: Experience, rows: Sequence[int]) -> Experience:
    """The named rows in the given order, cut to the longest response among them."""
    index = torch.tensor(list(rows), device=experience.loss_mask.device)
    responses = [experience.responses[i] for i in rows]
    width = max(map(len, responses))
    tensors = {
        name: getattr(experience, name)[index, :width]
        for name in ("loss_mask", *_PER_TOKEN)
    }
    return Experience([experience.prompts[i] for i in rows], responses, **tensors)


def ppo_backward(
    policy: GPT,
    value_model: ScalarModel,
    experience: Experience,
    objective: PpoObjective,
    *,
    denominator: float,
    loss_scale: float = 1.0,
) -> PpoLoss:
    """Add the gradients of some rows of a minibatch to both models.

    denominator: counted tokens of the whole minibatch, so that the gradients (and statistics) of its parts add up
    to those of one large backward. loss_scale: factor on the gradients alone, for fp16.
    Returns the loss and statistics of these rows, already divided by the denominator.
    """
    batch = pack(experience.prompts, experience.responses, experience.loss_mask.device)
    logprobs, entropy = response_logprobs(policy, batch, temperature=objective.temperature)
    values = response_values(value_model, batch)
    mask = experience.loss_mask
    result = ppo_loss(
        pad(logprobs, mask),
        experience.old_logprobs,
        experience.advantages,
        pad(values, mask),
        experience.old_values,
        experience.returns,
        mask,
        cliprange=objective.cliprange,
        cliprange_value=objective.cliprange_value,
        vf_coef=objective.vf_coef,
        # Without a bonus the entropy is only watched, and its gradient would be computed for nothing.
        entropy=pad(entropy if objective.entropy_coef else entropy.detach(), mask),
        entropy_coef=objective.entropy_coef,
        ref_logprobs=experience.ref_logprobs,
        denominator=denominator,
    )
    (result.loss * loss_scale).backward()
    return result
