"""A linear layer whose rows do not depend on their neighbours: the same bits alone and in any batch.

Not covered: gradients; equal bits between devices, or between CPUs of different vector levels; a CPU's matrix units for
16-bit numbers (AMX): such numbers are widened to float32, several times slower for many rows than torch's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt_fast.ops import _checks, _library

_OP = "invariant_linear"
_linear = torch.ops.instructgpt_fast.invariant_linear
_linear_out = torch.ops.instructgpt_fast.invariant_linear_out


def invariant_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """Computes y[m, n] = sum over k of x[m, k] weight[n, k] + bias[n], with row m's bits a function of row m alone.

    A matrix product of a BLAS library takes another path, and another order of summation, for each number of rows: a
    request served beside others gets other bits than alone. Here the order of every sum is decided by K alone, so a row
    has the same bits for every M, at every place and beside any other rows, on any number of threads.

    Args:
        x: [M, K] float32, bfloat16 or float16.
        weight: [N, K] of x's dtype, the layout of torch.nn.Linear; read in place when contiguous.
        bias: [N] of x's dtype, or None.
        out: [M, N] of x's dtype or float32, contiguous, no memory shared with the others; written and returned. With
            float32 a 16-bit layer's results are not rounded to 16 bits: logits to draw from.

    Returns:
        [M, N] of x's dtype, or `out`. Products and sums are in float32 and rounded once.

    Raises:
        TypeError: for a dtype that is not served. ValueError: for shapes that do not fit, an `out` that is not
        contiguous, or when a gradient is asked for. BackendError: for a device without a kernel.
    """
    if not _is_plain(x, weight, bias, out):
        _check(x, weight, bias, out)
    if out is None:
        y: Tensor = _linear(x, weight, bias)
        return y
    _linear_out(x, weight, bias, out)
    return out


def invariant_linear_oracle(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """The same in plain torch, in the dtype of its arguments (float64 to judge others)."""
    y = x @ weight.T if bias is None else x @ weight.T + bias
    return y if out is None else out.copy_(y)


def _is_plain(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None) -> bool:
    """Whether a call is in order and on the CPU; _check also tells what is wrong, in the time of a small layer."""
    if not (isinstance(x, Tensor) and isinstance(weight, Tensor) and x.dim() == 2 and weight.dim() == 2):
        return False
    dtype, outputs = x.dtype, weight.shape[0]
    if dtype not in _checks.FLOATS or weight.dtype != dtype or x.shape[1] != weight.shape[1]:
        return False
    if not (x.is_cpu and weight.is_cpu) or (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        return False
    if bias is not None and not (isinstance(bias, Tensor) and bias.dtype == dtype and bias.dim() == 1
                                 and bias.shape[0] == outputs and bias.is_cpu
                                 and not (torch.is_grad_enabled() and bias.requires_grad)):
        return False
    return out is None


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None) -> None:
    _checks.check_tensor(_OP, "x", x, dtypes=_checks.FLOATS, dim=2)
    _checks.check_tensor(_OP, "weight", weight, dtypes=_checks.FLOATS, dim=2)
    _checks.check_same_dtype(_OP, x=x, weight=weight)
    _checks.check_shape(_OP, "weight", weight, (weight.shape[0], x.shape[1]), "[N, K] for x's K")
    if bias is not None:
        _checks.check_tensor(_OP, "bias", bias, dtypes=(x.dtype,))
        _checks.check_shape(_OP, "bias", bias, (weight.shape[0],), "[N] of weight")
    if out is not None:
        _checks.check_tensor(_OP, "out", out, dtypes=tuple(dict.fromkeys((x.dtype, torch.float32))))
        _checks.check_shape(_OP, "out", out, (x.shape[0], weight.shape[0]), "[M, N] of x and weight")
        if not out.is_contiguous():
            raise ValueError(f"{_OP}: out is written in place and must be contiguous, got strides {out.stride()}")
    tensors = {"x": x, "weight": weight, "bias": bias, "out": out}
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors.values()):
        raise ValueError(f"{_OP}: has no gradient, got an input that requires one; call it under torch.no_grad()")
    _checks.check_served(_OP, **tensors)


@torch.library.register_fake(f"{_library.NAMESPACE}::invariant_linear")
def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.register_fake(f"{_library.NAMESPACE}::invariant_linear_out")
def _fake_out(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    return None
