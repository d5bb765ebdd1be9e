"""One step of generation against a paged key-value cache: append the new keys and values, attend to all.

Not covered: gradients; growing the cache or claiming pages, which is the caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt_fast.ops import _checks, _library

_decode = torch.ops.instructgpt_fast.attention_decode


def attention_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    cache_lens: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Appends T tokens a row to its pages and attends causally: out = softmax(scale * q . keys) values.

    Vaswani et al. 2017, arXiv:1706.03762, eq. 1; the page table after Kwon et al. 2023, arXiv:2309.06180, section 4.2.
    On a GPU nothing waits for lengths or pages, and a call may be captured into a CUDA graph.

    Args:
        q: [B, T, H, D] float32, bfloat16 or float16; token t of row b stands at position cache_lens[b] + t.
        k: [B, T, Hkv, D] of q's dtype; H is a multiple of Hkv, head h reads h // (H / Hkv).
        v: as k.
        k_cache: [P, page, Hkv, D] of q's dtype, contiguous; written in place at the new positions.
        v_cache: as k_cache.
        block_table: [B, M] int32: position n of row b lies in page block_table[b, n // page], at n % page. A page
            that is written must belong to one row; entries that no new token sees are not read.
        cache_lens: [B] int32, tokens cached before this call; not changed.
        window: only the last `window` positions up to and with a token's own (tokens); None for all.
        scale: of the scores, in [2^-126, 2^126]; None for 1 / sqrt(D).

    Returns:
        [B, T, H, D] of q's dtype; scores and sums in float32.

    Raises:
        TypeError: for a dtype that is not served. ValueError: for shapes or options that do not fit, or when a gradient
        is asked for. RuntimeError: on the CPU for a row that outgrows its table, or a page outside the cache; a GPU
        cannot raise it: such a row (of a page: the tokens that see it) gives NaN, and nothing outside of the cache is
        touched. RuntimeError: on a GPU for D above 256. BackendError: for a device without a kernel.
    """
    _check(q, k, v, k_cache, v_cache, block_table, cache_lens, window, scale)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    out: Tensor = _decode(q, k, v, k_cache, v_cache, block_table, cache_lens, window, scale)
    return out


def attention_decode_oracle(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    cache_lens: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """The same in plain torch, in the dtype of its arguments (float64 to judge others); writes the caches too."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = torch.zeros_like(q)
    page, group = k_cache.shape[1], q.shape[2] // k.shape[2]
    for row, cached in enumerate(cache_lens.tolist()):
        for token in range(q.shape[1]):
            position = cached + token
            place = (block_table[row, position // page].long(), position % page)
            k_cache[place], v_cache[place] = k[row, token], v[row, token]
            seen = torch.arange(0 if window is None else max(0, position + 1 - window), position + 1)
            places = (block_table[row, seen // page].long(), seen % page)
            keys, values = (cache[places].repeat_interleave(group, 1) for cache in (k_cache, v_cache))
            scores = torch.einsum("hd,jhd->hj", q[row, token], keys) * scale
            out[row, token] = torch.einsum("hj,jhd->hd", scores.softmax(-1), values)
    return out


def _check(
    q: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, block_table: Tensor, cache_lens: Tensor,
    window: int | None, scale: float | None,
) -> None:
    op = "attention_decode"
    floats = {"q": q, "k": k, "v": v, "k_cache": k_cache, "v_cache": v_cache}
    for name, tensor in floats.items():
        _checks.check_tensor(op, name, tensor, dtypes=_checks.FLOATS, dim=4)
    _checks.check_same_dtype(op, **floats)
    rows, tokens, heads, width = q.shape
    kv_heads = k.shape[2]
    _checks.check_shape(op, "k", k, (rows, tokens, kv_heads, width), "q's rows, tokens and width")
    _checks.check_shape(op, "v", v, k.shape, "k's shape")
    _checks.check_shape(op, "k_cache", k_cache, (*k_cache.shape[:2], kv_heads, width), "k's heads and width")
    _checks.check_shape(op, "v_cache", v_cache, k_cache.shape, "k_cache's shape")
    if width == 0 or kv_heads == 0 or heads == 0 or heads % kv_heads or k_cache.shape[1] == 0:
        raise ValueError(
            f"{op}: q's heads must be a multiple of k's, D and the page at least 1, "
            f"got {heads} and {kv_heads} heads, D {width}, page {k_cache.shape[1]}"
        )
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        if not cache.is_contiguous():
            raise ValueError(f"{op}: {name} is written in place and must be contiguous, got strides {cache.stride()}")
    _checks.check_tensor(op, "block_table", block_table, dtypes=(torch.int32,), dim=2)
    _checks.check_shape(op, "block_table", block_table, (rows, block_table.shape[1]), "q's rows")
    _checks.check_tensor(op, "cache_lens", cache_lens, dtypes=(torch.int32,))
    _checks.check_shape(op, "cache_lens", cache_lens, (rows,), "q's rows")
    _checks.check_window(op, window)
    _checks.check_scale(op, scale)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in floats.values()):
        raise ValueError(f"{op}: has no gradient, got an input that requires one; call it under torch.no_grad()")
    _checks.check_served(op, **floats, block_table=block_table, cache_lens=cache_lens)


@torch.library.register_fake(f"{_library.NAMESPACE}::attention_decode")
def _fake(
    q: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, block_table: Tensor, cache_lens: Tensor,
    window: int | None, scale: float,
) -> Tensor:
    return q.new_empty(q.shape)
