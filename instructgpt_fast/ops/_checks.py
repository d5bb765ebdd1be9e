"""Checks at the door of every op: what a caller can get wrong is said here, by name, before native code runs."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def check_tensor(
    op: str,
    name: str,
    value: Tensor,
    *,
    dtypes: Sequence[torch.dtype] | None = None,
    dim: int | None = None,
    min_dim: int | None = None,
) -> None:
    """Raises TypeError unless `value` is a tensor of one of `dtypes`, ValueError unless it has `dim` dimensions."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor, got {type(value).__name__}")
    if dtypes is not None and value.dtype not in dtypes:
        served = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        got = str(value.dtype).removeprefix("torch.")
        raise TypeError(f"{op}: {name} must have dtype {served}, got {got}; convert it with .to()")
    if dim is not None and value.dim() != dim:
        raise ValueError(f"{op}: {name} must have {dim} dimensions, got shape {tuple(value.shape)}")
    if min_dim is not None and value.dim() < min_dim:
        raise ValueError(f"{op}: {name} needs at least {min_dim} dimensions, got shape {tuple(value.shape)}")


def check_shape(op: str, name: str, value: Tensor, shape: Sequence[int], meaning: str = "") -> None:
    """Raises ValueError unless `value` has exactly `shape`; `meaning` names it, as "[V, D] of weight"."""
    if tuple(value.shape) != tuple(shape):
        note = f" ({meaning})" if meaning else ""
        raise ValueError(f"{op}: {name} must have shape {tuple(shape)}{note}, got {tuple(value.shape)}")


def check_scale(op: str, scale: float | None) -> None:
    """Raises unless a scale of scores is a number that kernels can hold, and its product with log2(e); None passes.

    As 0 it would make NaN of the -infinity of keys that are not seen.
    """
    if scale is None:
        return
    if not isinstance(scale, Real):
        raise TypeError(f"{op}: scale must be a number, got {type(scale).__name__}")
    if not 0 < scale < float("inf"):
        raise ValueError(f"{op}: scale must be finite and above 0, got {scale}")
    if not 2.0**-126 <= scale <= 2.0**126:
        raise ValueError(f"{op}: scale must lie in [2^-126, 2^126], where float32 has all its digits, got {scale}")


def check_window(op: str, window: int | None) -> None:
    """Raises unless a window is a number of keys, at least 1; None passes."""
    if window is None:
        return
    if not isinstance(window, Integral):
        raise TypeError(f"{op}: window must be an int, got {type(window).__name__}")
    if not 1 <= window < 2**63:
        raise ValueError(f"{op}: window must be at least 1 and below 2^63, got {window}; None for all keys")


def check_same_dtype(op: str, **tensors: Tensor | None) -> None:
    """Raises TypeError unless all given tensors (None is skipped) have the dtype of the first."""
    first_name, first = next((name, value) for name, value in tensors.items() if value is not None)
    for name, value in tensors.items():
        if value is not None and value.dtype != first.dtype:
            raise TypeError(f"{op}: {name} must have {first_name}'s dtype {first.dtype}, got {value.dtype}")


def check_served(op: str, **tensors: Tensor | None) -> None:
    """Raises ValueError unless all given tensors share a device, BackendError unless `op` runs on that device.

    `op` is the raw operator's name; None is skipped. Meta tensors pass: the fakes serve them.
    """
    first_name, first = next((name, value) for name, value in tensors.items() if value is not None)
    for name, value in tensors.items():
        if value is not None and value.device != first.device:
            raise ValueError(
                f"{op}: all tensors must be on one device, got {first_name} on {first.device} and {name} on "
                f"{value.device}; move one of them with .to()"
            )
    kind = first.device.type
    if kind == "cpu" or kind == "meta" or (kind == "cuda" and op in _library.CUDA_OPERATORS):
        return
    if kind == "cuda":
        raise BackendError(
            f"{op}: has no CUDA kernel in this build, got {first_name} on {first.device}; move the tensors to the CPU "
            f"with .cpu(), or rebuild with INSTRUCTGPT_FAST_CUDA=ON. `instructgpt-fast doctor` tells what was built"
        )
    raise BackendError(f"{op}: runs on cpu and cuda, got {first_name} on {first.device}; move the tensors with .to()")


def check_constant(op: str, **tensors: Tensor | None) -> None:
    """Raises ValueError for a tensor that asks for a gradient where `op` has none to give; None is skipped.

    A gradient that silently stays away is worse than an error: the caller detaches, or works under torch.no_grad().
    """
    if not torch.is_grad_enabled():
        return
    for name, value in tensors.items():
        if value is not None and value.requires_grad:
            raise ValueError(
                f"{op}: {name} is a constant of this op and gets no gradient, got a tensor that requires one; "
                f"pass {name}.detach() or call it under torch.no_grad()"
            )
