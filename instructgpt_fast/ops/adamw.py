"""One AdamW step over many tensors in one pass: gradient scale, clipping, decoupled decay, float32 masters, average.

On a GPU nothing is read back: the count, the norm and the decision to step stay on the device. A CUDA graph may record
the call; it then repeats it with the numbers (lr, scale ...) and the tensors it was recorded with.

Not covered: AMSGrad, sparse gradients, a learning rate per tensor (call once for each).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from instructgpt_fast.ops import _checks, _library

_OP = "adamw"
_adamw = torch.ops.instructgpt_fast.adamw


@torch.no_grad()
def adamw(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    step: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float | Sequence[float],
    eps_placement: Literal["torch", "tensorflow"] = "torch",
    masters: Sequence[Tensor] | None = None,
    emas: Sequence[Tensor] | None = None,
    ema_decay: float = 0.0,
    grad_norm: Tensor | None = None,
    max_grad_norm: float | None = None,
    grad_scale: float = 1.0,
) -> Tensor:
    """Applies one step in place: p = p (1 - lr wd) - lr m^ / (sqrt(v^) + eps), with moments m and v of the gradient g.

    Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2 (decay decoupled, scaled by lr): m = b1 m + (1 - b1) g,
    v = b2 v + (1 - b2) g^2, m^ = m / (1 - b1^t), v^ = v / (1 - b2^t). With eps_placement="tensorflow" instead
    p = p (1 - lr wd) - lr_t m / (sqrt(v) + eps), lr_t = lr sqrt(1 - b2^t) / (1 - b1^t): Kingma & Ba 2015,
    arXiv:1412.6980, end of section 2. Here
    g = grad * grad_scale * min(1, max_grad_norm / (grad_norm * grad_scale + 1e-6)).

    Args:
        params: tensors of any shape, contiguous, all float32, all bfloat16 or all float16; written.
        grads: one a param, of its shape and dtype.
        exp_avgs, exp_avg_sqs: m and v, float32, one a param, of its shape, contiguous; written.
        step: [1] int64, the number of steps applied so far; written.
        lr, betas, eps: learning rate, (b1, b2) in [0, 1), eps above 0.
        weight_decay: one number for all params, or one for each.
        masters: float32 params that the step is computed on and params are rounded from; needed when params are not
            float32 and only then; written.
        emas: float32 averages, ema = ema_decay * ema + (1 - ema_decay) * p; written. None for no average.
        grad_norm: [] float32, the L2 norm of grads (all of them, also of other calls) before grad_scale. When it is not
            finite nothing is touched, step neither. None: not looked at.
        max_grad_norm: clips to this norm; needs grad_norm. None for no clipping.
        grad_scale: factor on grads before everything else, for example 1 / number of tokens.

    Returns:
        applied: [1] bool, False when grad_norm was not finite.

    Raises:
        TypeError: for a dtype that is not served. ValueError: for lists that do not fit, a written tensor that is not
        contiguous, a number out of range. BackendError: for a device without a kernel.
    """
    masters, emas = list(masters or ()), list(emas or ())
    decays = [float(weight_decay)] * len(params) if isinstance(weight_decay, (int, float)) else list(weight_decay)
    _check_numbers(lr, betas, eps, decays, eps_placement, ema_decay, max_grad_norm, grad_scale)
    _check_lists(params, grads, exp_avgs, exp_avg_sqs, masters, emas, decays)
    _checks.check_tensor(_OP, "step", step, dtypes=(torch.int64,))
    _checks.check_shape(_OP, "step", step, (1,))
    if grad_norm is not None:
        _checks.check_tensor(_OP, "grad_norm", grad_norm, dtypes=(torch.float32,), dim=0)
    elif max_grad_norm is not None:
        raise ValueError(f"{_OP}: max_grad_norm needs grad_norm, got None; pass ops.grad_norm(all gradients)")
    _checks.check_served(_OP, step=step, grad_norm=grad_norm, **({"params": params[0]} if params else {}))
    if not torch.compiler.is_compiling():
        # A backward pass through weights that were stepped since its forward then raises, as with torch's optimizers.
        torch.autograd.graph.increment_version(params)
    return _adamw(
        list(params), list(grads), list(exp_avgs), list(exp_avg_sqs), step, masters, emas, grad_norm,
        lr, betas[0], betas[1], eps, decays, eps_placement == "tensorflow", ema_decay,
        math.inf if max_grad_norm is None else max_grad_norm, grad_scale,
    )  # fmt: skip


@torch.no_grad()
def adamw_oracle(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    step: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float | Sequence[float],
    eps_placement: Literal["torch", "tensorflow"] = "torch",
    masters: Sequence[Tensor] | None = None,
    emas: Sequence[Tensor] | None = None,
    ema_decay: float = 0.0,
    grad_norm: Tensor | None = None,
    max_grad_norm: float | None = None,
    grad_scale: float = 1.0,
) -> Tensor:
    """The same in plain torch, in place, in the dtype of its arguments (float64 to judge others)."""
    if grad_norm is not None and not math.isfinite(float(grad_norm) * grad_scale):
        return torch.zeros(1, dtype=torch.bool)
    factor = grad_scale
    if grad_norm is not None and max_grad_norm is not None:
        factor *= min(1.0, max_grad_norm / (float(grad_norm) * grad_scale + 1e-6))
    step += 1
    correction1, correction2 = (1 - beta ** int(step) for beta in betas)
    for i, param in enumerate(params):
        weights = masters[i] if masters else param
        grad = grads[i].to(weights.dtype) * factor
        decay = weight_decay if isinstance(weight_decay, (int, float)) else weight_decay[i]
        exp_avgs[i].copy_(betas[0] * exp_avgs[i] + (1 - betas[0]) * grad)
        exp_avg_sqs[i].copy_(betas[1] * exp_avg_sqs[i] + (1 - betas[1]) * grad * grad)
        if eps_placement == "torch":
            update = (exp_avgs[i] / correction1) / ((exp_avg_sqs[i] / correction2).sqrt() + eps)
        else:
            update = (math.sqrt(correction2) / correction1) * exp_avgs[i] / (exp_avg_sqs[i].sqrt() + eps)
        weights.copy_(weights * (1 - lr * decay) - lr * update)
        if masters:
            param.copy_(weights)
        if emas:
            emas[i].copy_(ema_decay * emas[i] + (1 - ema_decay) * weights)
    return torch.ones(1, dtype=torch.bool)


def _check_numbers(
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decays: Sequence[float],
    eps_placement: str,
    ema_decay: float,
    max_grad_norm: float | None,
    grad_scale: float,
) -> None:
    placed = eps_placement in ("torch", "tensorflow")
    rules = (
        (lr >= 0 and math.isfinite(lr), f"lr must be finite and not negative, got {lr}"),
        (len(betas) == 2 and all(0 <= b < 1 for b in betas), f"betas must be two numbers in [0, 1), got {betas}"),
        (eps > 0, f"eps must be above 0, got {eps}"),
        (all(decay >= 0 for decay in decays), f"weight_decay must not be negative, got {decays[:8]}"),
        (placed, f"eps_placement must be 'torch' or 'tensorflow', got {eps_placement!r}"),
        (0 <= ema_decay <= 1, f"ema_decay must be in [0, 1], got {ema_decay}"),
        (max_grad_norm is None or max_grad_norm > 0, f"max_grad_norm must be above 0 or None, got {max_grad_norm}"),
        (math.isfinite(grad_scale), f"grad_scale must be finite, got {grad_scale}"),
    )
    for holds, rule in rules:
        if not holds:
            raise ValueError(f"{_OP}: {rule}")


def _check_lists(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    masters: Sequence[Tensor],
    emas: Sequence[Tensor],
    decays: Sequence[float],
) -> None:
    if not params:
        return
    if len(decays) != len(params):
        raise ValueError(f"{_OP}: weight_decay must be one number or one a param, {len(params)}, got {len(decays)}")
    _checks.check_tensor(_OP, "params[0]", params[0], dtypes=_checks.FLOATS)
    dtype = params[0].dtype
    if bool(masters) != (dtype != torch.float32):
        rule = "must be left out for float32 params" if masters else f"are needed for {dtype} params"
        raise ValueError(f"{_OP}: masters {rule}, got {len(masters)}")
    state = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    state |= {name: tensors for name, tensors in (("masters", masters), ("emas", emas)) if tensors}
    lists = [("params", params, dtype, True), ("grads", grads, dtype, False)]
    lists += [(name, tensors, torch.float32, True) for name, tensors in state.items()]
    device = params[0].device
    for name, tensors, wanted, written in lists:
        if len(tensors) != len(params):
            raise ValueError(f"{_OP}: {name} must be as many as params, {len(params)}, got {len(tensors)}")
        for i, (tensor, param) in enumerate(zip(tensors, params, strict=True)):
            if tensor.dtype != wanted:
                raise TypeError(f"{_OP}: {name}[{i}] must have dtype {wanted}, got {tensor.dtype}")
            if tensor.shape != param.shape:
                shapes = f"{tuple(param.shape)}, got {tuple(tensor.shape)}"
                raise ValueError(f"{_OP}: {name}[{i}] must have the shape of params[{i}], {shapes}")
            if tensor.device != device:
                raise ValueError(f"{_OP}: {name}[{i}] must be on {device} as params[0], got {tensor.device}")
            if written and not tensor.is_contiguous():
                raise ValueError(f"{_OP}: {name}[{i}] is written in place and must be contiguous; use .contiguous()")


@torch.library.register_fake(f"{_library.NAMESPACE}::adamw")
def _fake_adamw(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    step: Tensor,
    masters: Sequence[Tensor],
    emas: Sequence[Tensor],
    grad_norm: Tensor | None,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decays: Sequence[float],
    eps_before_correction: bool,
    ema_decay: float,
    max_grad_norm: float,
    grad_scale: float,
) -> Tensor:
    return step.new_empty((1,), dtype=torch.bool)
