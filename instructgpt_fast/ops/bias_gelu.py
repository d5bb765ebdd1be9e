"""Bias and GELU in one pass; one tensor is kept for the gradient instead of two.

Not covered: a GELU without bias, activations other than GELU.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from instructgpt_fast.ops import _checks, _library

_forward = torch.ops.instructgpt_fast.bias_gelu
_backward = torch.ops.instructgpt_fast.bias_gelu_backward

Approximation = Literal["tanh", "none"]


def bias_gelu(x: Tensor, bias: Tensor, *, approximate: Approximation = "tanh") -> Tensor:
    """Adds the bias and applies the Gaussian error linear unit: y = gelu(v), v = x + bias.

    "none":  gelu(v) = v Phi(v), Phi the normal distribution function.
    "tanh":  gelu(v) = v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 v^3))), which GPT-2 and GPT-3 use.
    Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.

    Args:
        x: [..., D] float32, bfloat16 or float16.
        bias: [D], x's dtype or float32.
        approximate: "tanh" or "none".

    Returns:
        y [..., D] of x's dtype; v is kept in float32 and never rounded to x's dtype.

    Raises:
        TypeError: for a dtype that is not served. ValueError: for shapes that do not fit or an unknown `approximate`.
        BackendError: for a device without a kernel.
    """
    _checks.check_tensor("bias_gelu", "x", x, dtypes=_checks.FLOATS, min_dim=1)
    _checks.check_tensor("bias_gelu", "bias", bias, dtypes=(x.dtype, torch.float32))
    _checks.check_shape("bias_gelu", "bias", bias, x.shape[-1:], "[D] of x")
    if approximate not in ("tanh", "none"):
        raise ValueError(f'bias_gelu: approximate must be "tanh" or "none", got {approximate!r}')
    _checks.check_served("bias_gelu", x=x, bias=bias)
    tanh = approximate == "tanh"
    if torch.is_grad_enabled() and (x.requires_grad or bias.requires_grad):
        return _BiasGelu.apply(x, bias, tanh)
    return _forward(x, bias, tanh)


def bias_gelu_oracle(x: Tensor, bias: Tensor, *, approximate: Approximation = "tanh") -> Tensor:
    """The same in plain torch, in the dtype of its arguments (float64 to judge others); differentiable."""
    v = x + bias
    if approximate == "tanh":
        return v * torch.sigmoid((8 / torch.pi) ** 0.5 * (v + 0.044715 * v**3))
    return v * torch.special.ndtr(v)


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, tanh: bool) -> Tensor:
        ctx.save_for_backward(x, bias)
        ctx.tanh = tanh
        return _forward(x, bias, tanh)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, bias = ctx.saved_tensors
        dx, dbias = _backward(dy, x, bias, ctx.tanh)
        return dx, dbias, None


@torch.library.register_fake(f"{_library.NAMESPACE}::bias_gelu")
def _fake_forward(x: Tensor, bias: Tensor, tanh: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.register_fake(f"{_library.NAMESPACE}::bias_gelu_backward")
def _fake_backward(dy: Tensor, x: Tensor, bias: Tensor, tanh: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(bias)
