"""The PPO loss: clipped policy objective, clipped value loss, entropy bonus and KL penalty, with its gradients, fused.

Not covered: gradients to anything but logprobs, values and entropy; the rest are constants of the update.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from instructgpt_fast.ops import _checks, _library

_forward = torch.ops.instructgpt_fast.ppo_loss
_backward = torch.ops.instructgpt_fast.ppo_loss_backward

STATS = ("policy_loss", "value_loss", "entropy", "clipfrac", "value_clipfrac", "approx_kl", "ratio_mean", "kl")


class PpoLoss(NamedTuple):
    """What `ppo_loss` returns; `stats` carries no gradient. Every entry is a sum over tokens / denominator."""

    loss: Tensor  # [] float32
    stats: Tensor  # [8] float32, in the order of STATS

    @property
    def policy_loss(self) -> Tensor:
        """[] max of the unclipped and the clipped term."""
        return self.stats[0]

    @property
    def value_loss(self) -> Tensor:
        """[] half of the larger squared error, before vf_coef."""
        return self.stats[1]

    @property
    def entropy(self) -> Tensor:
        """[] nats a token; 0 when no entropy was given."""
        return self.stats[2]

    @property
    def clipfrac(self) -> Tensor:
        """[] share of tokens whose clipped policy term is the larger one."""
        return self.stats[3]

    @property
    def value_clipfrac(self) -> Tensor:
        """[] share of tokens whose clipped value error is the larger one."""
        return self.stats[4]

    @property
    def approx_kl(self) -> Tensor:
        """[] half the mean squared change of the log-probability since the rollout."""
        return self.stats[5]

    @property
    def ratio_mean(self) -> Tensor:
        """[] mean of the probability ratio to the rollout's policy."""
        return self.stats[6]

    @property
    def kl(self) -> Tensor:
        """[] estimate k3 of KL(policy, reference) in nats a token; 0 when no ref_logprobs were given."""
        return self.stats[7]


def ppo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    loss_mask: Tensor,
    *,
    cliprange: float,
    cliprange_value: float,
    vf_coef: float,
    denominator: float,
    entropy: Tensor | None = None,
    entropy_coef: float = 0.0,
    ref_logprobs: Tensor | None = None,
    kl_loss_coef: float = 0.0,
) -> PpoLoss:
    """Computes the sum over counted tokens of the four terms below, divided by `denominator`.

    With r = exp(logprobs - old_logprobs), A = advantages, R = returns, c = clip(values, old_values +- cliprange_value):
      policy   max(-A r, -A clip(r, 1 - cliprange, 1 + cliprange))     Schulman et al. 2017, arXiv:1707.06347, eq. 7
      value    vf_coef * 0.5 max((values - R)^2, (c - R)^2)            Ziegler et al. 2019, arXiv:1909.08593, code
      entropy  -entropy_coef * entropy                                 Schulman et al. 2017, eq. 9
      KL       kl_loss_coef * (e^d - d - 1), d = ref_logprobs - logprobs    Schulman 2020, "Approximating KL", k3
    Where a clipped term is the larger one its gradient is 0. Uncounted tokens are never read into a result, and their
    gradients are 0.

    Args:
        logprobs: [B, T] float32, of the tokens under the policy being trained, at the sampling temperature.
        old_logprobs: [B, T] float32, under the policy that sampled them.
        advantages, returns: [B, T] float32.
        values, old_values: [B, T] float32, of the value model now and at the rollout.
        loss_mask: [B, T] bool, True = this token counts.
        cliprange, cliprange_value: how far the ratio and the value may move for a gain, above 0; the value's is in
            units of reward.
        vf_coef, entropy_coef, kl_loss_coef: weights of the terms, finite.
        denominator: above 0, usually the number of counted tokens of the whole batch.
        entropy: [B, T] float32 or None.
        ref_logprobs: [B, T] float32 under the reference policy or None.

    Returns:
        PpoLoss; `loss` has gradients to logprobs, values and entropy.

    Raises:
        TypeError: for a dtype that is not served. BackendError: for a device without a kernel.
        ValueError: for shapes or numbers that do not fit, or a constant that requires a gradient.
    """
    constants = {"old_logprobs": old_logprobs, "advantages": advantages, "old_values": old_values,
                 "returns": returns, "ref_logprobs": ref_logprobs}
    _check({"logprobs": logprobs, "values": values, "entropy": entropy, **constants}, loss_mask)
    _checks.check_constant("ppo_loss", **constants)
    _check_numbers(cliprange=cliprange, cliprange_value=cliprange_value, denominator=denominator)
    _check_coefficients(entropy, ref_logprobs, vf_coef, entropy_coef, kl_loss_coef)
    tensors = (logprobs, old_logprobs, advantages, values, old_values, returns, loss_mask, entropy, ref_logprobs)
    numbers = (cliprange, cliprange_value, vf_coef, entropy_coef, kl_loss_coef, denominator)
    needs_grad = torch.is_grad_enabled() and (
        logprobs.requires_grad or values.requires_grad or (entropy is not None and entropy.requires_grad)
    )
    if needs_grad:
        return PpoLoss(*_PpoLoss.apply(*tensors, *numbers))
    loss, stats, _, _ = _forward(*tensors, *numbers, False)
    return PpoLoss(loss, stats)


def ppo_loss_oracle(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    loss_mask: Tensor,
    *,
    cliprange: float,
    cliprange_value: float,
    vf_coef: float,
    denominator: float,
    entropy: Tensor | None = None,
    entropy_coef: float = 0.0,
    ref_logprobs: Tensor | None = None,
    kl_loss_coef: float = 0.0,
) -> PpoLoss:
    """The same in plain torch over the counted tokens alone; differentiable by autograd."""
    new, old, advantage = logprobs[loss_mask], old_logprobs[loss_mask], advantages[loss_mask]
    value, old_value, target = values[loss_mask], old_values[loss_mask], returns[loss_mask]
    ratio = torch.exp(new - old)
    unclipped = -advantage * ratio
    clipped = -advantage * torch.clamp(ratio, 1 - cliprange, 1 + cliprange)
    # A choice and not torch.maximum, which would halve the gradient between two equal terms.
    policy = torch.where(clipped > unclipped, clipped, unclipped)
    bounded = old_value + torch.clamp(value - old_value, -cliprange_value, cliprange_value)
    error, bounded_error = (value - target).square(), (bounded - target).square()
    value_loss = 0.5 * torch.where(bounded_error > error, bounded_error, error)
    nothing = torch.zeros_like(new)
    bonus = nothing if entropy is None else entropy[loss_mask]
    apart = nothing if ref_logprobs is None else ref_logprobs[loss_mask] - new
    kl = torch.exp(apart) - apart - 1
    loss = policy + vf_coef * value_loss - entropy_coef * bonus + kl_loss_coef * kl
    measured = (policy, value_loss, bonus, (clipped > unclipped).to(new.dtype),
                (bounded_error > error).to(new.dtype), 0.5 * (new - old).square(), ratio, kl)
    stats = torch.stack([term.detach().sum() for term in measured]) / denominator
    return PpoLoss(loss.sum() / denominator, stats)


def _check(tensors: dict[str, Tensor | None], loss_mask: Tensor) -> None:
    first = tensors["logprobs"]
    assert first is not None
    for name, value in tensors.items():
        if value is not None:
            _checks.check_tensor("ppo_loss", name, value, dtypes=(torch.float32,), dim=2)
            _checks.check_shape("ppo_loss", name, value, first.shape, "[B, T] of logprobs")
    _checks.check_tensor("ppo_loss", "loss_mask", loss_mask, dtypes=(torch.bool,))
    _checks.check_shape("ppo_loss", "loss_mask", loss_mask, first.shape, "[B, T] of logprobs")
    _checks.check_served("ppo_loss", **tensors, loss_mask=loss_mask)


def _check_numbers(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"ppo_loss: {name} must be finite and above 0, got {value}")


def _check_coefficients(
    entropy: Tensor | None, ref_logprobs: Tensor | None, vf_coef: float, entropy_coef: float, kl_loss_coef: float
) -> None:
    for name, value in (("vf_coef", vf_coef), ("entropy_coef", entropy_coef), ("kl_loss_coef", kl_loss_coef)):
        if not math.isfinite(value):
            raise ValueError(f"ppo_loss: {name} must be finite, got {value}")
    if entropy is None and entropy_coef != 0:
        raise ValueError(f"ppo_loss: entropy_coef {entropy_coef} needs entropy, got None; pass entropy or 0")
    if ref_logprobs is None and kl_loss_coef != 0:
        raise ValueError(f"ppo_loss: kl_loss_coef {kl_loss_coef} needs ref_logprobs, got None; pass them or 0")


class _PpoLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        loss, stats, grad_logprobs, grad_values = _forward(*arguments, True)
        ctx.save_for_backward(grad_logprobs, grad_values, *arguments[:9])
        ctx.numbers, ctx.handed_out = arguments[9:], False
        ctx.mark_non_differentiable(stats)
        return loss, stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        grad_logprobs, grad_values, *inputs = ctx.saved_tensors
        if ctx.handed_out:  # the graph was kept for another pass, and the first one gave the saved gradients away
            _, _, grad_logprobs, grad_values = _forward(*inputs, *ctx.numbers, True)
        ctx.handed_out = True
        _, _, _, entropy_coef, _, denominator = ctx.numbers
        needed = ctx.needs_input_grad
        loss_mask = inputs[6] if needed[7] else None
        grad_entropy = _backward(grad_logprobs, grad_values, loss_mask, dloss, entropy_coef, denominator)
        grads: list[Tensor | None] = [None] * len(needed)
        for place, gradient in ((0, grad_logprobs), (3, grad_values), (7, grad_entropy)):
            grads[place] = gradient if needed[place] else None
        return tuple(grads)


@torch.library.register_fake(f"{_library.NAMESPACE}::ppo_loss")
def _fake_forward(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, values: Tensor, old_values: Tensor, returns: Tensor,
    loss_mask: Tensor, entropy: Tensor | None, ref_logprobs: Tensor | None, cliprange: float, cliprange_value: float,
    vf_coef: float, entropy_coef: float, kl_loss_coef: float, denominator: float, with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, columns = logprobs.shape
    grads = [logprobs.new_empty((rows if with_gradient else 0, columns)) for _ in range(2)]
    return logprobs.new_empty(()), logprobs.new_empty(len(STATS)), grads[0], grads[1]


@torch.library.register_fake(f"{_library.NAMESPACE}::ppo_loss_backward")
def _fake_backward(
    grad_logprobs: Tensor, grad_values: Tensor, loss_mask: Tensor | None, dloss: Tensor, entropy_coef: float,
    denominator: float,
) -> Tensor:
    rows, columns = grad_logprobs.shape
    return grad_logprobs.new_empty((0 if loss_mask is None else rows, columns))
