"""Generalised advantage estimation over masked sequences.

Not covered: a value to bootstrap from after the last counted token (every response ends its episode), gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt_fast.ops import _checks, _library

_forward = torch.ops.instructgpt_fast.gae


def gae(
    rewards: Tensor, values: Tensor, loss_mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Computes A_t = delta_t + gamma lam A_t', delta_t = r_t + gamma V_t' - V_t, where t' is the next counted token.

    Schulman et al. 2016, arXiv:1506.02438, eq. 16, written as its backward recursion. Tokens that do not count are
    skipped: they neither discount nor end anything, and what they hold (NaN included) is never read into a result.
    After the last counted token of a row both V_t' and A_t' are 0.

    Args:
        rewards: [B, T] float32, the reinforcement signal of each token (score and KL penalty).
        values: [B, T] float32, the value model's estimate at each token, in units of reward.
        loss_mask: [B, T] bool, True = this token counts.
        gamma: discount per counted token, in [0, 1].
        lam: lambda, in [0, 1]: 0 trusts the value model, 1 the rewards.

    Returns:
        advantages [B, T] float32 and returns = advantages + values [B, T] float32; both 0 where uncounted.

    Raises:
        TypeError: for a dtype that is not served. BackendError: for a device without a kernel.
        ValueError: for shapes that do not fit, gamma or lam outside [0, 1], or an input that requires a gradient.
    """
    _check(rewards, values, loss_mask, gamma, lam)
    advantages, returns = _forward(rewards, values, loss_mask, gamma, lam)
    return advantages, returns


def gae_oracle(
    rewards: Tensor, values: Tensor, loss_mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """The same in plain torch, one step of the recursion at a time, in the dtype of its arguments."""
    zero = torch.zeros_like(rewards[:, 0]) if rewards.shape[1] else rewards.new_zeros(rewards.shape[0])
    next_value, next_advantage = zero, zero
    columns = []
    for t in reversed(range(rewards.shape[1])):
        counted = loss_mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        columns.append(torch.where(counted, advantage, zero))
        next_value = torch.where(counted, values[:, t], next_value)
        next_advantage = torch.where(counted, advantage, next_advantage)
    advantages = torch.stack(columns[::-1], dim=1) if columns else torch.zeros_like(rewards)
    return advantages, torch.where(loss_mask, advantages + values, torch.zeros_like(values))


def _check(rewards: Tensor, values: Tensor, loss_mask: Tensor, gamma: float, lam: float) -> None:
    _checks.check_tensor("gae", "rewards", rewards, dtypes=(torch.float32,), dim=2)
    _checks.check_tensor("gae", "values", values, dtypes=(torch.float32,))
    _checks.check_tensor("gae", "loss_mask", loss_mask, dtypes=(torch.bool,))
    _checks.check_shape("gae", "values", values, rewards.shape, "[B, T] of rewards")
    _checks.check_shape("gae", "loss_mask", loss_mask, rewards.shape, "[B, T] of rewards")
    for name, value in (("gamma", gamma), ("lam", lam)):
        if not 0 <= value <= 1:
            raise ValueError(f"gae: {name} must be in [0, 1], got {value}")
    _checks.check_constant("gae", rewards=rewards, values=values)
    _checks.check_served("gae", rewards=rewards, values=values, loss_mask=loss_mask)


@torch.library.register_fake(f"{_library.NAMESPACE}::gae")
def _fake_forward(
    rewards: Tensor, values: Tensor, loss_mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    dense = torch.contiguous_format
    return torch.empty_like(rewards, memory_format=dense), torch.empty_like(rewards, memory_format=dense)
