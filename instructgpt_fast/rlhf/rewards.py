"""Rewards of PPO: a KL penalty on every response token, the score on the last one."""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt_fast.ops import masked_whiten

__all__ = ["shape_scores", "token_rewards", "whiten_token_rewards"]


def shape_scores(
    scores: Tensor,
    finished: Tensor,
    *,
    missing_eos_penalty: float = 0.0,
    whiten: bool = False,
    clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Turn raw scores into the numbers the policy is rewarded with: EOS penalty, then whitening, then clipping.

    scores: f32 [B]. finished: bool [B], True where the response ended with EOS.
    missing_eos_penalty: subtracted where it did not. whiten: zero mean and unit variance over the batch.
    clip: bound on the absolute value after that, in the same unit.
    Returns (penalised, shaped), both f32 [B]: the first is what the log calls `objective/scores`.
    """
    penalised = torch.where(finished, scores, scores - missing_eos_penalty)
    shaped = masked_whiten(penalised, torch.ones_like(finished)) if whiten else penalised
    if clip is not None:
        shaped = shaped.clamp(-clip, clip)
    return penalised, shaped


def token_rewards(scores: Tensor, kl: Tensor, loss_mask: Tensor, *, kl_coef: float) -> Tensor:
    """Reward of each response token: -beta * kl_t, plus the score on the last (Ouyang et al. 2022, eq. 2).

    scores: f32 [B]. kl: f32 [B, R], 0 at uncounted positions. loss_mask: bool [B, R], at least one True a row.
    Returns f32 [B, R], 0 at uncounted positions.
    """
    positions = torch.arange(loss_mask.shape[1], device=loss_mask.device)
    last = positions.masked_fill(~loss_mask, -1).amax(dim=1)
    rewards = kl * -kl_coef
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def whiten_token_rewards(rewards: Tensor, loss_mask: Tensor) -> Tensor:
    """Divide rewards by their standard deviation, keeping their mean (Ziegler et al. 2019, released code).

    rewards: f32 [B, R]. loss_mask: bool [B, R]. Returns f32 [B, R].
    """
    return masked_whiten(rewards, loss_mask, shift_mean=False)
