"""Output layer and cross-entropy in one op, which never holds the logits of all tokens.

Not covered: label smoothing, class weights, a bias of the output layer, second derivatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from instructgpt_fast.ops import _checks, _library

_OP = "linear_cross_entropy"
_forward = torch.ops.instructgpt_fast.linear_cross_entropy


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, loss_mask: Tensor | None = None) -> Tensor:
    """Sums -log softmax(hidden @ weight.T)[target] over the counted tokens.

    Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", eq. 1 and 2. The gradient is
    computed together with the loss when one is needed, and the backward pass only scales it. On a GPU a loss_mask makes
    the host wait once, for the number of counted tokens.

    Args:
        hidden: [N, D] float32, bfloat16 or float16; row i is the state that targets[i] is predicted from.
        weight: [V, D] of hidden's dtype, the output layer (the token embedding where the two are tied).
        targets: [N] int64, in [0, V) where counted; anything elsewhere.
        loss_mask: [N] bool, True = this token counts; None counts all. Uncounted rows are never read and cost nothing.

    Returns:
        The loss, [] float32, in nats, a sum: divide by the number of counted tokens for a mean.

    Raises:
        TypeError: for a dtype that is not served. ValueError: for shapes that do not fit.
        RuntimeError: for a counted target outside [0, V) (on a GPU, as with torch's own losses, a later call raises it
        and the device is lost to the process). BackendError: for a device without a kernel.
    """
    _check(hidden, weight, targets, loss_mask)
    grad = torch.is_grad_enabled()
    need_dhidden, need_dweight = grad and hidden.requires_grad, grad and weight.requires_grad
    if need_dhidden or need_dweight:
        return _LinearCrossEntropy.apply(hidden, weight, targets, loss_mask, need_dhidden, need_dweight)
    return _forward(hidden, weight, targets, loss_mask, False, False)[0]


def linear_cross_entropy_oracle(
    hidden: Tensor, weight: Tensor, targets: Tensor, loss_mask: Tensor | None = None
) -> Tensor:
    """The same in plain torch with whole logits, in the dtype of its arguments; differentiable."""
    if loss_mask is not None:
        hidden, targets = hidden[loss_mask], targets[loss_mask]
    logits = hidden @ weight.T
    at_target = logits.gather(1, targets[:, None])[:, 0]
    return (torch.logsumexp(logits, dim=1) - at_target).sum()


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, loss_mask: Tensor | None) -> None:
    _checks.check_tensor(_OP, "hidden", hidden, dtypes=_checks.FLOATS, dim=2)
    _checks.check_tensor(_OP, "weight", weight, dtypes=_checks.FLOATS, dim=2)
    _checks.check_same_dtype(_OP, hidden=hidden, weight=weight)
    _checks.check_shape(_OP, "weight", weight, (weight.shape[0], hidden.shape[1]), "[V, D] with D of hidden")
    if weight.shape[0] == 0:
        raise ValueError(f"{_OP}: weight must have at least one row, got shape {tuple(weight.shape)}")
    _checks.check_tensor(_OP, "targets", targets, dtypes=(torch.int64,))
    _checks.check_shape(_OP, "targets", targets, hidden.shape[:1], "[N] of hidden")
    if loss_mask is not None:
        _checks.check_tensor(_OP, "loss_mask", loss_mask, dtypes=(torch.bool,))
        _checks.check_shape(_OP, "loss_mask", loss_mask, hidden.shape[:1], "[N] of hidden")
    _checks.check_served(_OP, hidden=hidden, weight=weight, targets=targets, loss_mask=loss_mask)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        loss_mask: Tensor | None,
        need_dhidden: bool,
        need_dweight: bool,
    ) -> Tensor:
        loss, dhidden, dweight = _forward(hidden, weight, targets, loss_mask, need_dhidden, need_dweight)
        ctx.save_for_backward(dhidden, dweight)
        ctx.dtype, ctx.need_dhidden, ctx.need_dweight = hidden.dtype, need_dhidden, need_dweight
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        dhidden, dweight = ctx.saved_tensors
        # Scaled before the rounding to float16: a sum over tokens may be out of its range where the mean is not.
        hidden_grad = (dhidden * dloss).to(ctx.dtype) if ctx.need_dhidden else None
        weight_grad = (dweight * dloss).to(ctx.dtype) if ctx.need_dweight else None
        return hidden_grad, weight_grad, None, None, None, None


@torch.library.register_fake(f"{_library.NAMESPACE}::linear_cross_entropy")
def _fake_forward(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    loss_mask: Tensor | None,
    need_dhidden: bool,
    need_dweight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    width = hidden.shape[1]
    compute = torch.bfloat16 if hidden.dtype == torch.bfloat16 else torch.float32
    loss = hidden.new_empty((), dtype=torch.float32)
    dhidden = hidden.new_empty((hidden.shape[0] if need_dhidden else 0, width), dtype=compute)
    dweight = hidden.new_empty((weight.shape[0] if need_dweight else 0, width), dtype=compute)
    return loss, dhidden, dweight
