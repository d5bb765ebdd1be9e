"""Which keys a query sees, and which elements of its softmax dropout keeps: for oracles and for plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt_fast.ops._philox import DROPOUT_USE, key_of, philox


def visible_keys(
    queries: int, keys: int, causal: bool, window: int | None, device: torch.device | None = None
) -> Tensor:
    """Which keys each query of one sequence sees: bool [queries, keys]."""
    position = torch.arange(queries, device=device)[:, None] + keys - queries
    key = torch.arange(keys, device=device)[None, :]
    visible = torch.ones(queries, keys, dtype=torch.bool, device=device)
    if causal:
        visible &= key <= position
    if window is not None:
        visible &= key > position - window
    return visible


def dropout_mask(
    seed: int | Tensor, p: float, first_row: int, rows_and_heads: tuple[int, ...] | torch.Size, keys: int
) -> Tensor:
    """Which elements of the softmax are kept: bool [rows, heads, keys]; first_row counts over the whole batch."""
    rows, heads = rows_and_heads
    shape = (rows, heads, keys)
    seed = torch.as_tensor(seed).reshape(())
    key = torch.arange(keys, device=seed.device)
    counters = (
        (key // 64 * 16 + key % 16)[None, None].expand(shape),
        torch.arange(first_row, first_row + rows, device=seed.device)[:, None, None].expand(shape),
        torch.arange(heads, device=seed.device)[None, :, None].expand(shape),
        torch.full(shape, DROPOUT_USE, device=seed.device),
    )
    words = torch.stack(philox(counters, key_of(seed)))
    word = words.gather(0, (key // 16 % 4).expand(1, *shape))[0]
    return word >= round(p * 2**32)
