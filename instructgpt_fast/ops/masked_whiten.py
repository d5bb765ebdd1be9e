"""Whitening over the counted elements: zero mean and unit variance, as PPO does to the advantages of a minibatch.

Not covered: statistics over several processes, gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt_fast.ops import _checks, _library

_forward = torch.ops.instructgpt_fast.masked_whiten


def masked_whiten(x: Tensor, loss_mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Computes (x - mean) / sqrt(var + eps) with mean and biased variance over the counted elements.

    Ziegler et al. 2019, arXiv:1909.08593, released code (`whiten`); the mean is added back when it is not to shift.
    Elements that do not count are never read into a result. One counted element, or equal ones, have variance 0 and
    become 0 (their mean, when it is not to shift).

    Args:
        x: [...] float32 of any shape.
        loss_mask: bool of x's shape, True = this element counts.
        shift_mean: whether the result has mean 0 (True) or keeps x's mean.
        eps: added to the variance, in units of x squared.

    Returns:
        float32 of x's shape; 0 where uncounted.

    Raises:
        TypeError: for a dtype that is not served. BackendError: for a device without a kernel.
        ValueError: for shapes that do not fit, eps not above 0, or an x that requires a gradient.
    """
    _check(x, loss_mask, eps)
    return _forward(x, loss_mask, shift_mean, eps)


def masked_whiten_oracle(x: Tensor, loss_mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """The same in plain torch, in the dtype of its arguments."""
    zero = torch.zeros_like(x)
    count = loss_mask.sum().clamp(min=1)
    mean = torch.where(loss_mask, x, zero).sum() / count
    centred = torch.where(loss_mask, x - mean, zero)
    variance = centred.square().sum() / count
    whitened = centred * torch.rsqrt(variance + eps)
    return whitened if shift_mean else torch.where(loss_mask, whitened + mean, zero)


def _check(x: Tensor, loss_mask: Tensor, eps: float) -> None:
    _checks.check_tensor("masked_whiten", "x", x, dtypes=(torch.float32,))
    _checks.check_tensor("masked_whiten", "loss_mask", loss_mask, dtypes=(torch.bool,))
    _checks.check_shape("masked_whiten", "loss_mask", loss_mask, x.shape, "x's shape")
    if not eps > 0:
        raise ValueError(f"masked_whiten: eps must be above 0, got {eps}")
    _checks.check_constant("masked_whiten", x=x)
    _checks.check_served("masked_whiten", x=x, loss_mask=loss_mask)


@torch.library.register_fake(f"{_library.NAMESPACE}::masked_whiten")
def _fake_forward(x: Tensor, loss_mask: Tensor, shift_mean: bool, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
