"""Sum of token and position embeddings; the gradient sums rows in a fixed order.

Not covered: sparse gradients, a padding id whose row gets no gradient (behind a loss mask its gradient is 0 anyway).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from instructgpt_fast.ops import _checks, _library

_forward = torch.ops.instructgpt_fast.embedding
_backward = torch.ops.instructgpt_fast.embedding_backward


def embedding(tokens: Tensor, position_ids: Tensor, token_weight: Tensor, position_weight: Tensor) -> Tensor:
    """Looks up and adds: y = token_weight[tokens] + position_weight[position_ids].

    Radford et al. 2018, "Improving language understanding by generative pre-training", eq. 2.

    Args:
        tokens: [...] int64 in [0, V).
        position_ids: [...] int64 in [0, P), tokens' shape.
        token_weight: [V, D] float32, bfloat16 or float16.
        position_weight: [P, D], token_weight's dtype.

    Returns:
        y [..., D] of the weights' dtype; added in float32. The gradients of both weights are dense and have equal bits
        for any number of threads.

    Raises:
        TypeError: for a dtype that is not served. ValueError: for shapes that do not fit.
        RuntimeError: on the CPU, for an id outside its table, naming it. A GPU would have to be waited for at every
            call to know: there the row of y is NaN, and in backward it counts nowhere in that table's gradient.
        BackendError: for a device without a kernel.
    """
    _checks.check_tensor("embedding", "tokens", tokens, dtypes=(torch.int64,))
    _checks.check_tensor("embedding", "position_ids", position_ids, dtypes=(torch.int64,))
    _checks.check_shape("embedding", "position_ids", position_ids, tokens.shape, "tokens' shape")
    _checks.check_tensor("embedding", "token_weight", token_weight, dtypes=_checks.FLOATS, dim=2)
    _checks.check_tensor("embedding", "position_weight", position_weight, dim=2)
    _checks.check_same_dtype("embedding", token_weight=token_weight, position_weight=position_weight)
    if position_weight.shape[1] != token_weight.shape[1]:
        raise ValueError(
            f"embedding: position_weight must have token_weight's width {token_weight.shape[1]}, "
            f"got {position_weight.shape[1]}"
        )
    _checks.check_served(
        "embedding",
        tokens=tokens, position_ids=position_ids, token_weight=token_weight, position_weight=position_weight,
    )
    if torch.is_grad_enabled() and (token_weight.requires_grad or position_weight.requires_grad):
        return _Embedding.apply(tokens, position_ids, token_weight, position_weight)
    return _forward(tokens, position_ids, token_weight, position_weight)


def embedding_oracle(tokens: Tensor, position_ids: Tensor, token_weight: Tensor, position_weight: Tensor) -> Tensor:
    """The same in plain torch, in the dtype of its arguments (float64 to judge others); differentiable."""
    return token_weight[tokens] + position_weight[position_ids]


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, position_ids: Tensor, token_weight: Tensor, position_weight: Tensor
    ) -> Tensor:
        ctx.save_for_backward(tokens, position_ids)
        ctx.rows = (token_weight.shape[0], position_weight.shape[0])
        return _forward(tokens, position_ids, token_weight, position_weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        tokens, position_ids = ctx.saved_tensors
        dtoken_weight, dposition_weight = _backward(dy, tokens, position_ids, *ctx.rows)
        return None, None, dtoken_weight, dposition_weight


@torch.library.register_fake(f"{_library.NAMESPACE}::embedding")
def _fake_forward(tokens: Tensor, position_ids: Tensor, token_weight: Tensor, position_weight: Tensor) -> Tensor:
    return token_weight.new_empty((*tokens.shape, token_weight.shape[1]))


@torch.library.register_fake(f"{_library.NAMESPACE}::embedding_backward")
def _fake_backward(
    dy: Tensor, tokens: Tensor, position_ids: Tensor, vocab: int, positions: int
) -> tuple[Tensor, Tensor]:
    return dy.new_empty((vocab, dy.shape[-1])), dy.new_empty((positions, dy.shape[-1]))
