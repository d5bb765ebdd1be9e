"""Advantages and returns of a rollout, and how well the value model predicts them."""

from __future__ import annotations

from torch import Tensor

from instructgpt_fast.ops import gae, masked_whiten

__all__ = ["advantages_and_returns", "explained_variance", "whiten_advantages"]


def advantages_and_returns(
    rewards: Tensor, values: Tensor, loss_mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and their returns (Schulman et al. 2016, arXiv:1506.02438, eq. 16).

    rewards, values: f32 [B, R]; values[t] is V of the state before token t is chosen. loss_mask: bool [B, R].
    gamma, lam: discount and trace decay in [0, 1]. Returns (advantages, returns), f32 [B, R], 0 where uncounted.
    """
    return gae(rewards, values, loss_mask, gamma=gamma, lam=lam)


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
