"""attention's backward pass as an op of its own, so that its kernels are judged without those of the forward pass.

`drawn(...)` adds to q, k and v what a forward pass would have saved, worked out in float64: out in q's dtype, the
log-sum-exp in float32. Oracle and yardstick are the gradients of attention's own.

The option `poisoned` names rows of whole packed sequences, which are NaN for the kernels alone: what they give for
these rows does not count, and what they give for others may not change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from instructgpt_fast.ops._attention_masks import visible_keys
from instructgpt_fast.ops.attention import attention_oracle
from python_tests.ops import test_attention
from python_tests.ops.suite import Inputs, New, OpSuite


def drawn(inputs: Callable[[New], Inputs], **options: Any) -> Callable[[New], Inputs]:
    """The inputs of the backward pass of such a call; options as attention's."""

    def draw(new: New) -> Inputs:
        tensors = inputs(new)
        q, k, v = (tensors[name].double() for name in "qkv")
        cu_seqlens = tensors.get("cu_seqlens")
        out = attention_oracle(q, k, v, cu_seqlens=cu_seqlens, **options).to(new.dtype)
        kept = {name: value for name, value in options.items() if not name.startswith("dropout")}
        return {**tensors, "dout": new(*q.shape), "out": out, "lse": log_sum_exp(q, k, cu_seqlens, **kept)}

    return draw


def log_sum_exp(q: Tensor, k: Tensor, cu_seqlens: Tensor | None, *, causal: bool = True, window: int | None = None,
                scale: float | None = None) -> Tensor:
    """[heads, query rows] in float32, sequence by sequence."""
    if cu_seqlens is None:
        pairs = list(zip(q, k, strict=True))
    else:
        bounds = cu_seqlens.tolist()
        pairs = [(q[i:j], k[i:j]) for i, j in zip(bounds[:-1], bounds[1:], strict=True)]
    rows = []
    for queries, keys in pairs:
        scores = torch.einsum("ihd,jhd->hij", queries, keys.repeat_interleave(q.shape[-2] // k.shape[-2], 1))
        hidden = ~visible_keys(len(queries), len(keys), causal, window)
        rows.append((scores * (scale or q.shape[-1] ** -0.5)).masked_fill(hidden, -torch.inf).logsumexp(-1))
    return torch.cat(rows, 1).float()


Rows = tuple[tuple[int, int], ...]


def _filled(tensor: Tensor, rows: Rows, value: float, dim: int = 0) -> Tensor:
    filled = tensor.clone()
    for first, end in rows:
        filled.narrow(dim, first, end - first).fill_(value)
    return filled


def _by_op(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, out: Tensor, lse: Tensor, *,
           cu_seqlens: Tensor | None = None, causal: bool = True, window: int | None = None,
           dropout_p: float = 0.0, dropout_seed: int = 0, scale: float | None = None, deterministic: bool = True,
           poisoned: Rows = ()) -> tuple[Tensor, ...]:
    if poisoned:
        dout, q, k, v, out = (_filled(tensor, poisoned, torch.nan) for tensor in (dout, q, k, v, out))
        lse = _filled(lse, poisoned, torch.nan, dim=1)
    seed = torch.tensor([dropout_seed]) if dropout_p else None
    gradients = torch.ops.instructgpt_fast.attention_backward(
        dout, q, k, v, out, lse, cu_seqlens, causal, window, dropout_p, seed, scale or q.shape[-1] ** -0.5,
        deterministic,
    )
    return tuple(_filled(gradient, poisoned, 0.0) for gradient in gradients) if poisoned else gradients


def _by_autograd(forward: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    def gradients(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, out: Tensor, lse: Tensor, *,
                  deterministic: bool = True, poisoned: Rows = (), **options: Any) -> tuple[Tensor, ...]:
        leaves = [t.detach().requires_grad_() for t in (q, k, v)]
        wanted = torch.autograd.grad(forward(*leaves, **options), leaves, dout)
        return tuple(_filled(gradient, poisoned, 0.0) for gradient in wanted)

    return gradients


class AttentionGradients(OpSuite):
    """For `KernelSuite.suite`: outputs 0, 1 and 2 are dq, dk and dv."""

    name = "attention_backward"
    op = staticmethod(_by_op)
    oracle = staticmethod(_by_autograd(attention_oracle))
    yardstick = staticmethod(_by_autograd(test_attention.plain))
