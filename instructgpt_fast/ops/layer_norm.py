"""Layer normalisation with an optional residual addition in front.

Not covered: other norms, normalising over more than the last dimension, missing weight or bias.
"""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from instructgpt_fast.ops import _checks, _library

_forward = torch.ops.instructgpt_fast.layer_norm
_backward = torch.ops.instructgpt_fast.layer_norm_backward


@overload
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, residual: None = None, eps: float = 1e-5) -> Tensor: ...
@overload
def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, residual: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]: ...


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, residual: Tensor | None = None, eps: float = 1e-5
) -> Tensor | tuple[Tensor, Tensor]:
    """Normalises the last dimension: y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias, s = x + residual.

    Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 4; the variance is the biased one.

    Args:
        x: [..., D] float32, bfloat16 or float16.
        weight: [D], x's dtype or float32.
        bias: [D], weight's dtype.
        residual: [..., D] as x, added first; None for none.
        eps: added to the variance, dimensionless when x is.

    Returns:
        y [..., D] of x's dtype; with a residual (y, s), both [..., D] of x's dtype. Statistics are kept in float32.

    Raises:
        TypeError: for a dtype that is not served. ValueError: for shapes that do not fit.
        BackendError: for a device without a kernel.
    """
    _check(x, weight, bias, residual, eps)
    needs_grad = torch.is_grad_enabled() and (
        x.requires_grad
        or weight.requires_grad
        or bias.requires_grad
        or (residual is not None and residual.requires_grad)
    )
    if residual is None:
        if needs_grad:
            return _LayerNorm.apply(x, weight, bias, eps)
        return _forward(x, None, weight, bias, eps)[0]
    if needs_grad:
        return _ResidualLayerNorm.apply(x, residual, weight, bias, eps)
    y, summed, _, _ = _forward(x, residual, weight, bias, eps)
    return y, summed


def layer_norm_oracle(
    x: Tensor, weight: Tensor, bias: Tensor, *, residual: Tensor | None = None, eps: float = 1e-5
) -> Tensor | tuple[Tensor, Tensor]:
    """The same in plain torch, in the dtype of its arguments (float64 to judge others); differentiable."""
    summed = x if residual is None else x + residual
    centred = summed - summed.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    y = centred / torch.sqrt(variance + eps) * weight + bias
    return y if residual is None else (y, summed)


def _check(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, eps: float) -> None:
    _checks.check_tensor("layer_norm", "x", x, dtypes=_checks.FLOATS, min_dim=1)
    _checks.check_tensor("layer_norm", "weight", weight, dtypes=(x.dtype, torch.float32))
    _checks.check_tensor("layer_norm", "bias", bias)
    _checks.check_same_dtype("layer_norm", weight=weight, bias=bias)
    _checks.check_shape("layer_norm", "weight", weight, x.shape[-1:], "[D] of x")
    _checks.check_shape("layer_norm", "bias", bias, x.shape[-1:], "[D] of x")
    if residual is not None:
        _checks.check_tensor("layer_norm", "residual", residual)
        _checks.check_same_dtype("layer_norm", x=x, residual=residual)
        _checks.check_shape("layer_norm", "residual", residual, x.shape, "x's shape")
    if x.shape[-1] == 0:
        raise ValueError(f"layer_norm: x must have at least one feature, got shape {tuple(x.shape)}")
    if not eps > 0:
        raise ValueError(f"layer_norm: eps must be above 0, got {eps}")
    _checks.check_served("layer_norm", x=x, weight=weight, bias=bias, residual=residual)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, _, mean, rstd = _forward(x, None, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        dx, dweight, dbias = _backward(dy, None, x, weight, mean, rstd)
        return dx, dweight, dbias, None


class _ResidualLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        y, summed, mean, rstd = _forward(x, residual, weight, bias, eps)
        ctx.save_for_backward(summed, weight, mean, rstd)
        return y, summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dsummed: Tensor) -> tuple[Tensor | None, ...]:
        summed, weight, mean, rstd = ctx.saved_tensors
        dx, dweight, dbias = _backward(dy, dsummed, summed, weight, mean, rstd)
        return dx, dx, dweight, dbias, None


@torch.library.register_fake(f"{_library.NAMESPACE}::layer_norm")
def _fake_forward(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = x.shape[:-1].numel()
    summed = x.new_empty(0) if residual is None else torch.empty_like(x, memory_format=torch.contiguous_format)
    statistics = x.new_empty((rows,), dtype=torch.float32)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    return y, summed, statistics, torch.empty_like(statistics)


@torch.library.register_fake(f"{_library.NAMESPACE}::layer_norm_backward")
def _fake_backward(
    dy: Tensor, dsummed: Tensor | None, summed: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(summed, memory_format=torch.contiguous_format)
    return dx, torch.empty_like(weight), torch.empty_like(weight)
