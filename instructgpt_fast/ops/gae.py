"""Generalised advantage estimation over masked sequences, from given rewards or with the rewards shaped on the way.

Not covered: a value to bootstrap from after the last counted token (every response ends its episode), gradients.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from instructgpt_fast.ops import _checks, _library

_forward = torch.ops.instructgpt_fast.gae
_shaped_forward = torch.ops.instructgpt_fast.shaped_gae


class ShapedGae(NamedTuple):
    """What `shaped_gae` returns: four [B, T] float32, 0 where uncounted."""

    kl: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor


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
    _check("gae", {"rewards": rewards, "values": values}, loss_mask, gamma, lam)
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


def shaped_gae(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    scores: Tensor,
    values: Tensor,
    loss_mask: Tensor,
    *,
    kl_coef: float,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> ShapedGae:
    """Computes the same from rewards -kl_coef kl_t, kl_t = logprobs - ref_logprobs, plus the score on the last token.

    Ouyang et al. 2022, arXiv:2203.02155, eq. 2: a KL penalty on every counted token, the row's score on its last
    counted one. A row in which nothing counts gets 0 everywhere, and its score is not used.

    Args:
        logprobs: [B, T] float32, of the tokens under the policy that is rewarded, in nats.
        ref_logprobs: [B, T] float32, under the reference policy.
        scores: [B] float32, of the whole responses.
        values: [B, T] float32, the value model's estimate at each token, in units of reward.
        loss_mask: [B, T] bool, True = this token counts; what stands elsewhere (NaN included) is ignored.
        kl_coef: weight of the penalty, finite.
        gamma: discount per counted token, in [0, 1].
        lam: lambda, in [0, 1]: 0 trusts the value model, 1 the rewards.

    Returns:
        ShapedGae: kl, rewards, advantages and returns = advantages + values.

    Raises:
        TypeError: for a dtype that is not served. BackendError: for a device without a kernel.
        ValueError: for shapes that do not fit, gamma or lam outside [0, 1], a kl_coef that is not finite, or an input
            that requires a gradient.
    """
    tensors = {"logprobs": logprobs, "ref_logprobs": ref_logprobs, "values": values}
    _check("shaped_gae", tensors, loss_mask, gamma, lam)
    _checks.check_tensor("shaped_gae", "scores", scores, dtypes=(torch.float32,))
    _checks.check_shape("shaped_gae", "scores", scores, logprobs.shape[:1], "[B] of logprobs")
    if not math.isfinite(kl_coef):
        raise ValueError(f"shaped_gae: kl_coef must be finite, got {kl_coef}")
    _checks.check_constant("shaped_gae", scores=scores)
    _checks.check_served("shaped_gae", logprobs=logprobs, scores=scores)
    return ShapedGae(*_shaped_forward(logprobs, ref_logprobs, scores, values, loss_mask, kl_coef, gamma, lam))


def shaped_gae_oracle(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    scores: Tensor,
    values: Tensor,
    loss_mask: Tensor,
    *,
    kl_coef: float,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> ShapedGae:
    """The same in plain torch: the rewards, then `gae_oracle`."""
    kl = (logprobs - ref_logprobs).masked_fill(~loss_mask, 0.0)
    rewards = kl * -kl_coef
    counted_rows = loss_mask.any(dim=1).nonzero()[:, 0]
    positions = torch.arange(loss_mask.shape[1], device=loss_mask.device)
    last = (loss_mask * positions).amax(dim=1) if len(positions) else positions
    rewards[counted_rows, last[counted_rows]] += scores[counted_rows]
    return ShapedGae(kl, rewards, *gae_oracle(rewards, values, loss_mask, gamma=gamma, lam=lam))


def _check(op: str, tensors: dict[str, Tensor], loss_mask: Tensor, gamma: float, lam: float) -> None:
    first_name, first = next(iter(tensors.items()))
    for name, value in tensors.items():
        _checks.check_tensor(op, name, value, dtypes=(torch.float32,), dim=2)
        _checks.check_shape(op, name, value, first.shape, f"[B, T] of {first_name}")
    _checks.check_tensor(op, "loss_mask", loss_mask, dtypes=(torch.bool,))
    _checks.check_shape(op, "loss_mask", loss_mask, first.shape, f"[B, T] of {first_name}")
    for name, number in (("gamma", gamma), ("lam", lam)):
        if not 0 <= number <= 1:
            raise ValueError(f"{op}: {name} must be in [0, 1], got {number}")
    _checks.check_constant(op, **tensors)
    _checks.check_served(op, **tensors, loss_mask=loss_mask)


@torch.library.register_fake(f"{_library.NAMESPACE}::gae")
def _fake_forward(
    rewards: Tensor, values: Tensor, loss_mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    dense = torch.contiguous_format
    return torch.empty_like(rewards, memory_format=dense), torch.empty_like(rewards, memory_format=dense)


@torch.library.register_fake(f"{_library.NAMESPACE}::shaped_gae")
def _fake_shaped_forward(
    logprobs: Tensor, ref_logprobs: Tensor, scores: Tensor, values: Tensor, loss_mask: Tensor, kl_coef: float,
    gamma: float, lam: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dense = torch.contiguous_format
    kl, rewards, advantages, returns = (torch.empty_like(logprobs, memory_format=dense) for _ in range(4))
    return kl, rewards, advantages, returns
