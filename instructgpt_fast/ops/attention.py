"""Scaled dot-product attention over dense or packed batches: causal, banded, with fewer key heads, with dropout.

On a GPU bfloat16 and float16 with D of 64, 80, 96 or 128 run on tensor cores: by the kernels for sm_90 there (but for
dropout), by those for sm_80 elsewhere; float32 and every other D up to 256 run on CUDA cores.
Not covered: arbitrary masks and biases; second derivatives; on a GPU, D above 256. A NaN in a key or value stays within
its sequence, but there it may reach queries that do not see that key.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from instructgpt_fast.ops import _checks, _library
from instructgpt_fast.ops._attention_masks import dropout_mask, visible_keys

WIDEST_ON_CUDA = 256
# The largest float32 below 1: what is kept is divided by 1 - dropout_p, in float32.
MOST_DROPOUT = 1 - 2.0**-24

_forward = torch.ops.instructgpt_fast.attention
_backward = torch.ops.instructgpt_fast.attention_backward


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    cu_seqlens: Tensor | None = None,
    dropout_p: float = 0.0,
    dropout_seed: int | Tensor | None = None,
    deterministic: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attends: out[i] = sum over visible j of softmax_j(scale * q[i] . k[j]) v[j], heads apart, sequences apart.

    Vaswani et al. 2017, arXiv:1706.03762, eq. 1; the band after Child et al. 2019, arXiv:1904.10509.

    Args:
        q: dense [B, Tq, H, D], or packed [N, H, D] with cu_seqlens; float32, bfloat16 or float16.
        k: dense [B, Tk, Hkv, D] or packed [N, Hkv, D], q's dtype; H is a multiple of Hkv, head h reads h // (H / Hkv).
        v: as k.
        causal: query i, standing at position i + Tk - Tq, sees no key beyond its position.
        window: with causal, only the last `window` keys up to and with its own position (tokens); None for all.
        cu_seqlens: int32 [S + 1], where the packed sequences begin, and N; a sequence may be empty. The CPU refuses
            others. A GPU reads them on its own, so that nothing waits for it: bounds outside of [0, N], or that
            decrease, are cut to what there is, and rows that belong to no sequence are left unwritten.
        dropout_p: share of the softmax that is dropped, in [0, 1); the rest is divided by 1 - dropout_p.
        dropout_seed: int or int64 tensor [1]; None draws one from torch's default generator. Which elements are dropped
            depends on the seed and their place alone, and is drawn again in the backward pass.
        deterministic: asks for equal bits on repeat from kernels that have a faster order, as
            torch.use_deterministic_algorithms does: the gradient of q on tensor cores. All else always gives them.
        scale: of the scores, in [2^-126, 2^126]; None for 1 / sqrt(D).

    Returns:
        q's shape and dtype; scores and sums in float32. A query that sees no key gives 0.

    Raises:
        TypeError: for a dtype that is not served. ValueError: for shapes or options that do not fit.
        RuntimeError: on the CPU for a cu_seqlens that decreases or does not span the rows. BackendError: for a device
        without a kernel.
    """
    _check(q, k, v, causal, window, cu_seqlens, dropout_p, dropout_seed, scale)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    seed = _seed(dropout_seed, q.device) if dropout_p > 0 else None
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return _Attention.apply(q, k, v, cu_seqlens, causal, window, dropout_p, seed, scale, deterministic)
    return _forward(q, k, v, cu_seqlens, causal, window, dropout_p, seed, scale)[0]


def attention_oracle(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    cu_seqlens: Tensor | None = None,
    dropout_p: float = 0.0,
    dropout_seed: int | Tensor | None = None,
    deterministic: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The same in plain torch, in the dtype of its arguments (float64 to judge others); differentiable.

    dropout_seed must be given when dropout_p is above 0, so that both draw one mask.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if cu_seqlens is None:
        starts = [b * q.shape[1] for b in range(q.shape[0])]
        parts = list(zip(q, k, v, strict=True))
    else:
        bounds = cu_seqlens.tolist()
        starts = bounds[:-1]
        parts = [
            (q[start:end], k[start:end], v[start:end]) for start, end in zip(bounds[:-1], bounds[1:], strict=True)
        ]
    outs = []
    for start, (queries, keys, values) in zip(starts, parts, strict=True):
        probabilities = _softmax(queries, keys, visible_keys(len(queries), len(keys), causal, window, q.device), scale)
        if dropout_p > 0:
            assert dropout_seed is not None, "attention_oracle: dropout needs dropout_seed"
            seed = torch.as_tensor(dropout_seed, device=q.device)
            keep = dropout_mask(seed, dropout_p, start, queries.shape[:2], len(keys))
            probabilities = probabilities * keep / (1 - dropout_p)
        group = queries.shape[1] // values.shape[1]
        outs.append(torch.einsum("ihj,jhd->ihd", probabilities, values.repeat_interleave(group, 1)))
    if not outs:
        return q * 0.0
    return torch.stack(outs) if cu_seqlens is None else torch.cat(outs)


def _softmax(q: Tensor, k: Tensor, visible: Tensor, scale: float) -> Tensor:
    """[queries, heads, keys]; a row that sees nothing is 0."""
    keys = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = torch.einsum("ihd,jhd->ihj", q, keys) * scale
    scores = scores.masked_fill(~visible[:, None], -torch.inf)
    top = scores.detach().amax(-1, keepdim=True) if scores.shape[-1] else scores.new_zeros(*scores.shape[:2], 1)
    weights = torch.exp(scores - top.masked_fill(top == -torch.inf, 0.0))
    total = weights.sum(-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1.0)


def _seed(seed: int | Tensor | None, device: torch.device) -> Tensor:
    if seed is None:
        return torch.randint(torch.iinfo(torch.int64).max, (1,), device=device)
    if isinstance(seed, Tensor):
        return seed
    return torch.full((1,), seed, dtype=torch.int64, device=device)


def _check(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None, cu_seqlens: Tensor | None,
    dropout_p: float, dropout_seed: int | Tensor | None, scale: float | None,
) -> None:
    packed = cu_seqlens is not None
    layout = "[N, H, D] with cu_seqlens" if packed else "[B, T, H, D] without cu_seqlens"
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        _checks.check_tensor("attention", name, tensor, dtypes=_checks.FLOATS)
        if tensor.dim() != (3 if packed else 4):
            raise ValueError(f"attention: {name} must be {layout}, got shape {tuple(tensor.shape)}")
    _checks.check_same_dtype("attention", q=q, k=k, v=v)
    heads, width, kv_heads = q.shape[-2], q.shape[-1], k.shape[-2]
    expected = (*(q.shape[:1] if packed else (q.shape[0], k.shape[1])), kv_heads, width)
    _checks.check_shape("attention", "k", k, expected, "q's batch and width")
    _checks.check_shape("attention", "v", v, k.shape, "k's shape")
    if width == 0 or kv_heads == 0 or heads == 0 or heads % kv_heads:
        raise ValueError(
            f"attention: q's heads must be a multiple of k's and D at least 1, "
            f"got {heads} and {kv_heads} heads, D {width}"
        )
    if q.is_cuda and width > WIDEST_ON_CUDA:
        raise ValueError(f"attention: D must be at most {WIDEST_ON_CUDA} on a GPU, got {width}; the CPU serves any")
    _checks.check_window("attention", window)
    if window is not None and not causal:
        raise ValueError(f"attention: window needs causal=True, got {window} with causal={causal}")
    if not 0 <= dropout_p <= MOST_DROPOUT:
        raise ValueError(f"attention: dropout_p must lie in [0, 1), as a float32 too, got {dropout_p}")
    _checks.check_scale("attention", scale)
    if cu_seqlens is not None:
        _checks.check_tensor("attention", "cu_seqlens", cu_seqlens, dtypes=(torch.int32,), dim=1)
        if not len(cu_seqlens):
            raise ValueError("attention: cu_seqlens must have at least 1 element, [0] for no sequences, got none")
    if not isinstance(dropout_seed, (Integral, Tensor, type(None))):
        raise TypeError(f"attention: dropout_seed must be an int or a tensor, got {type(dropout_seed).__name__}")
    seed = dropout_seed if isinstance(dropout_seed, Tensor) else None
    if seed is not None:
        _checks.check_tensor("attention", "dropout_seed", seed, dtypes=(torch.int64,))
        _checks.check_shape("attention", "dropout_seed", seed, (1,))
    _checks.check_served("attention", q=q, k=k, v=v, cu_seqlens=cu_seqlens, dropout_seed=seed)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, causal: bool, window: int | None,
        dropout_p: float, seed: Tensor | None, scale: float, deterministic: bool,
    ) -> Tensor:
        out, lse = _forward(q, k, v, cu_seqlens, causal, window, dropout_p, seed, scale)
        ctx.save_for_backward(q, k, v, out, lse, cu_seqlens, seed)
        ctx.options = (causal, window, dropout_p)
        ctx.scale, ctx.deterministic = scale, deterministic
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, cu_seqlens, seed = ctx.saved_tensors
        grads = _backward(dout, q, k, v, out, lse, cu_seqlens, *ctx.options, seed, ctx.scale, ctx.deterministic)
        return (*grads, *(None,) * 7)


@torch.library.register_fake(f"{_library.NAMESPACE}::attention")
def _fake_forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, causal: bool, window: int | None, dropout_p: float,
    dropout_seed: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty((q.shape[-2], q.shape[:-2].numel()), dtype=torch.float32)


@torch.library.register_fake(f"{_library.NAMESPACE}::attention_backward")
def _fake_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_seqlens: Tensor | None, causal: bool,
    window: int | None, dropout_p: float, dropout_seed: Tensor | None, scale: float, deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
