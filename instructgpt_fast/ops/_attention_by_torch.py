"""attention in torch's own operations, for GPUs for which this build has no kernel of it.

The same results to rounding: same masks, same dropped elements. torch.nn.functional.scaled_dot_product_attention does
the work and chooses among its own kernels; said once in a process, by a warning.
Not covered: speed. A packed batch is walked through sequence by sequence, after waiting for their bounds; a band is a
mask of queries x keys; dropout holds the whole softmax of a sequence, because torch draws its own mask.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from instructgpt_fast.ops._attention_masks import dropout_mask, visible_keys

_said: set[str] = set()


def say_once(op: str) -> None:
    """Warn that torch stands in for `op`, the first time."""
    if torch.compiler.is_compiling() or op in _said:
        return
    _said.add(op)
    warnings.warn(
        f"{op}: this build has no CUDA kernel for it; torch's scaled_dot_product_attention is used instead, "
        "with the same results to rounding",
        stacklevel=3,
    )


def attention_by_torch(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, causal: bool, window: int | None, dropout_p: float,
    dropout_seed: Tensor | None, scale: float,
) -> Tensor:
    """As the raw operator `attention`, its first result alone; differentiable by autograd.

    Raises RuntimeError for a cu_seqlens that decreases or does not span the rows.
    """
    if cu_seqlens is None:
        if dropout_seed is None:
            return _attend(q, k, v, causal, window, scale)
        bounds = [i * q.shape[1] for i in range(q.shape[0] + 1)]
        sequences = list(zip(q, k, v, strict=True))
    else:
        bounds = _bounds(cu_seqlens, q.shape[0])
        lengths = [end - start for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
        sequences = list(zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True))
    outs = []
    for start, (queries, keys, values) in zip(bounds[:-1], sequences, strict=True):
        if dropout_seed is None:
            outs.append(_attend(queries[None], keys[None], values[None], causal, window, scale)[0])
        else:
            kept = dropout_mask(dropout_seed, dropout_p, start, queries.shape[:2], keys.shape[0]) / (1 - dropout_p)
            outs.append(_attend_with_dropout(queries, keys, values, causal, window, kept, scale))
    if not outs:
        return q + 0 * (k.sum() + v.sum())  # no sequence, and so no row
    return torch.stack(outs) if cu_seqlens is None else torch.cat(outs)


def _bounds(cu_seqlens: Tensor, rows: int) -> list[int]:
    bounds: list[int] = cu_seqlens.tolist()
    if not bounds or bounds[0] != 0 or bounds[-1] != rows or sorted(bounds) != bounds:
        raise RuntimeError(
            f"attention: cu_seqlens must begin with 0, not decrease and end with the {rows} packed rows, got "
            f"{bounds[:3]} ... {bounds[-3:]}"
        )
    return bounds


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None, scale: float) -> Tensor:
    """[B, Tq, H, D] on [B, Tk, Hkv, D] without dropout."""
    queries, length = q.shape[1], k.shape[1]
    if q.numel() == 0 or length == 0:
        return q * 0.0 + 0 * (k.sum() + v.sum())
    group = q.shape[2] // k.shape[2]
    heads, keys, values = (
        t.transpose(1, 2) for t in (q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2))
    )
    if not causal or (window is None and queries == length):
        out = scaled_dot_product_attention(heads, keys, values, is_causal=causal, scale=scale)
    else:
        visible = visible_keys(queries, length, causal, window, q.device)
        sees = visible.any(-1, keepdim=True)
        # A query that sees nothing is let see all, so that no softmax is 0 / 0, and then made 0.
        out = scaled_dot_product_attention(heads, keys, values, visible | ~sees, scale=scale)
        out = torch.where(sees, out, 0)
    return out.transpose(1, 2)


def _attend_with_dropout(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None, factors: Tensor, scale: float
) -> Tensor:
    """[Tq, H, D] on [Tk, Hkv, D], the softmax times `factors` [Tq, H, Tk]; scores and softmax in f32."""
    group = q.shape[1] // k.shape[1]
    heads, keys, values = (t.transpose(0, 1) for t in (q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)))
    visible = visible_keys(q.shape[0], k.shape[0], causal, window, q.device)
    sees = visible.any(-1, keepdim=True)
    scores = ((heads @ keys.transpose(1, 2)).float() * scale).masked_fill(~(visible | ~sees), -torch.inf)
    weights = torch.where(sees, scores.softmax(-1) if k.shape[0] else scores, 0) * factors.transpose(0, 1)
    return (weights.to(q.dtype) @ values).transpose(0, 1)
