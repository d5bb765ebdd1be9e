"""The L2 norm over a list of tensors, with equal bits for any number of threads.

Not covered: other norms, gradients through the norm, sparse tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instructgpt_fast.ops import _checks, _library

_OP = "grad_norm"
_norm = torch.ops.instructgpt_fast.grad_norm


def grad_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Returns sqrt(sum of x^2) over all elements x of all tensors.

    The norm that gradients are clipped by: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, section 3.2. Sums over
    blocks of fixed size are kept in float64, and no square overflows.

    Args:
        tensors: at least one; any shapes; float32, bfloat16 and float16, freely mixed; all on one device.

    Returns:
        The norm, [] float32; NaN or infinite when an element is.

    Raises:
        TypeError: for a dtype that is not served. ValueError: for an empty list or several devices.
        BackendError: for a device without a kernel.
    """
    tensors = [tensor.detach() if isinstance(tensor, Tensor) else tensor for tensor in tensors]
    if not tensors:
        raise ValueError(f"{_OP}: tensors must hold at least one tensor, got an empty list; leave the call out")
    for i, tensor in enumerate(tensors):
        _checks.check_tensor(_OP, f"tensors[{i}]", tensor, dtypes=_checks.FLOATS)
    _checks.check_served(_OP, **{f"tensors[{i}]": tensor for i, tensor in enumerate(tensors)})
    return _norm(tensors)


def grad_norm_oracle(tensors: Sequence[Tensor]) -> Tensor:
    """The same in plain torch, in the dtype of its arguments (float64 to judge others)."""
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum().sqrt()


@torch.library.register_fake(f"{_library.NAMESPACE}::grad_norm")
def _fake_norm(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0].new_empty((), dtype=torch.float32)
