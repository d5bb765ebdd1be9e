"""Log-probabilities of given tokens and entropies of their distributions, without the logits of all tokens.

Not covered: top-k or top-p truncation (the distribution is the whole one), second derivatives.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from instructgpt_fast.ops import _checks, _library

_OP = "token_logprobs"
_forward = torch.ops.instructgpt_fast.token_logprobs
_backward = torch.ops.instructgpt_fast.token_logprobs_backward


def token_logprobs(
    hidden: Tensor, weight: Tensor, tokens: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns log p[token] and the entropy -sum(p log p) of p = softmax(hidden @ weight.T / temperature), per row.

    Ouyang et al. 2022, arXiv:2203.02155, eq. 2, a token at a time. The backward pass multiplies the logits again, chunk
    by chunk; rows that no gradient reaches (both incoming gradients 0) are left out of it, for which on a GPU the host
    waits once for their number.

    Args:
        hidden: [N, D] float32, bfloat16 or float16; row i is the state that tokens[i] is predicted from.
        weight: [V, D] of hidden's dtype, the output layer.
        tokens: [N] int64 in [0, V).
        temperature: divides the logits, above 0.

    Returns:
        (logprobs, entropy), both [N] float32, in nats.

    Raises:
        TypeError: for a dtype that is not served. ValueError: for shapes that do not fit or a temperature not above 0.
        RuntimeError: for a token outside [0, V) (on a GPU, as with torch's own losses, a later call raises it and the
        device is lost to the process). BackendError: for a device without a kernel.
    """
    _check(hidden, weight, tokens, temperature)
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _TokenLogprobs.apply(hidden, weight, tokens, temperature, hidden.requires_grad, weight.requires_grad)
    logprobs, entropy, _ = _forward(hidden, weight, tokens, temperature)
    return logprobs, entropy


def token_logprobs_oracle(
    hidden: Tensor, weight: Tensor, tokens: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The same in plain torch with whole logits, in the dtype of its arguments; differentiable."""
    log_p = torch.log_softmax(hidden @ weight.T / temperature, dim=1)
    return log_p.gather(1, tokens[:, None])[:, 0], -(log_p.exp() * log_p).sum(1)


def _check(hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float) -> None:
    _checks.check_tensor(_OP, "hidden", hidden, dtypes=_checks.FLOATS, dim=2)
    _checks.check_tensor(_OP, "weight", weight, dtypes=_checks.FLOATS, dim=2)
    _checks.check_same_dtype(_OP, hidden=hidden, weight=weight)
    _checks.check_shape(_OP, "weight", weight, (weight.shape[0], hidden.shape[1]), "[V, D] with D of hidden")
    if weight.shape[0] == 0:
        raise ValueError(f"{_OP}: weight must have at least one row, got shape {tuple(weight.shape)}")
    _checks.check_tensor(_OP, "tokens", tokens, dtypes=(torch.int64,))
    _checks.check_shape(_OP, "tokens", tokens, hidden.shape[:1], "[N] of hidden")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(
            f"{_OP}: temperature must be above 0 and finite, got {temperature}; greedy decoding uses temperature 1 here"
        )
    _checks.check_served(_OP, hidden=hidden, weight=weight, tokens=tokens)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        tokens: Tensor,
        temperature: float,
        need_dhidden: bool,
        need_dweight: bool,
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropy, statistics = _forward(hidden, weight, tokens, temperature)
        ctx.save_for_backward(hidden, weight, tokens, entropy, statistics)
        ctx.temperature, ctx.need_dhidden, ctx.need_dweight = temperature, need_dhidden, need_dweight
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlogprobs: Tensor, dentropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, tokens, entropy, statistics = ctx.saved_tensors
        dhidden, dweight = _backward(
            dlogprobs, dentropy, hidden, weight, tokens, entropy, statistics,
            ctx.temperature, ctx.need_dhidden, ctx.need_dweight,
        )  # fmt: skip
        return dhidden if ctx.need_dhidden else None, dweight if ctx.need_dweight else None, None, None, None, None


@torch.library.register_fake(f"{_library.NAMESPACE}::token_logprobs")
def _fake_forward(hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    count = hidden.shape[0]
    logprobs = hidden.new_empty((count,), dtype=torch.float32)
    return logprobs, torch.empty_like(logprobs), hidden.new_empty((count, 2), dtype=torch.float32)


@torch.library.register_fake(f"{_library.NAMESPACE}::token_logprobs_backward")
def _fake_backward(
    dlogprobs: Tensor,
    dentropy: Tensor,
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    entropy: Tensor,
    statistics: Tensor,
    temperature: float,
    need_dhidden: bool,
    need_dweight: bool,
) -> tuple[Tensor, Tensor]:
    width = hidden.shape[1]
    dhidden = hidden.new_empty((hidden.shape[0] if need_dhidden else 0, width))
    return dhidden, hidden.new_empty((weight.shape[0] if need_dweight else 0, width))
