"""Rewards, advantages and returns of a rollout, and how well the value model predicts them."""

from __future__ import annotations

from torch import Tensor

from instructgpt_fast.ops import ShapedGae, gae, masked_whiten, shaped_gae

__all__ = ["explained_variance", "shaped_advantages", "whiten_advantages"]


def shaped_advantages(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    scores: Tensor,
    values: Tensor,
    loss_mask: Tensor,
    *,
    kl_coef: float,
    gamma: float,
    lam: float,
    whiten_rewards: bool = False,
) -> ShapedGae:
    """Rewards of a rollout (Ouyang et al. 2022, eq. 2) and their advantages (Schulman et al. 2016, eq. 16).

    A token's reward is -kl_coef (log pi - log pi_SFT), plus the score on the response's last token.
    logprobs, ref_logprobs: f32 [B, R], nats. scores: f32 [B]. values: f32 [B, R], of the state before token t is
    chosen. loss_mask: bool [B, R]; whatever stands at uncounted positions is ignored.
    gamma, lam: discount and trace decay in [0, 1]. whiten_rewards: divide the rewards by their standard deviation
    first, keeping their mean (Ziegler et al. 2019, released code).
    Returns (kl, rewards, advantages, returns), f32 [B, R], 0 at uncounted positions.
    """
    shaped = shaped_gae(
        logprobs, ref_logprobs, scores, values, loss_mask, kl_coef=kl_coef, gamma=gamma, lam=lam
    )
    if not whiten_rewards:
        return shaped
    rewards = masked_whiten(shaped.rewards, loss_mask, shift_mean=False)
    return ShapedGae(shaped.kl, rewards, *gae(rewards, values, loss_mask, gamma=gamma, lam=lam))


def whiten_advantages(advantages: Tensor, loss_mask: Tensor) -> Tensor:
    """Give the counted advantages of one minibatch zero mean and unit variance; f32 [M, R] in and out."""
    return masked_whiten(advantages, loss_mask)


def explained_variance(values: Tensor, returns: Tensor, loss_mask: Tensor) -> float:
    """1 - Var[returns - values] / Var[returns] over counted tokens: 1 is a perfect value model, 0 a constant one.

    values, returns: f32 [B, R]. loss_mask: bool [B, R]. Returns 0.0 when the returns do not vary at all.
    """
    target = returns[loss_mask].double()
    error = target - values[loss_mask].double()
    spread = target.var(unbiased=False).item()
    return 1.0 - error.var(unbiased=False).item() / spread if spread > 0.0 else 0.0
