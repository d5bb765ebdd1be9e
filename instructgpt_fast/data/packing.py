"""Sequences of different lengths laid end to end, so that no time goes into padding."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import torch
from torch import Tensor

from instructgpt_fast.errors import DataError
from instructgpt_fast.tokenizer import Encoded

__all__ = ["pack_bins", "pack_encoded"]


def pack_bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Share sequences out among rows of at most `capacity` tokens: best fit, longest first.

    Fills rows to within 11/9 of the fewest possible (Johnson et al. 1974). Equal lengths keep their order, rows list
    their sequences by index, and rows come by their first index, so the result depends on `lengths` alone.
    Returns indices into `lengths`, each once. Raises DataError for a sequence longer than a row.
    """
    room: list[tuple[int, int]] = []  # (tokens free, row), sorted: the first that is large enough fits best
    rows: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if length > capacity:
            raise DataError(f"pack_bins: a sequence must fit a row of {capacity} tokens, got {length} at index {index}")
        place = bisect.bisect_left(room, (length, -1))
        if place == len(room):
            rows.append([])
            free, row = capacity, len(rows) - 1
        else:
            free, row = room.pop(place)
        rows[row].append(index)
        bisect.insort(room, (free - length, row))
    return sorted(sorted(row) for row in rows)


def pack_encoded(examples: Sequence[Encoded], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Lay examples end to end for a model that attends within each alone.

    Returns "tokens" int64 [N], "loss_mask" bool [N], and "cu_seqlens" int32 [S + 1]: where each of the S examples
    begins, then N.
    """
    tokens = [token for example in examples for token in example.tokens]
    mask = [counts for example in examples for counts in example.loss_mask]
    starts = [0]
    for example in examples:
        starts.append(starts[-1] + len(example.tokens))
    return {
        "tokens": torch.tensor(tokens, dtype=torch.int64, device=device),
        "loss_mask": torch.tensor(mask, dtype=torch.bool, device=device),
        "cu_seqlens": torch.tensor(starts, dtype=torch.int32, device=device),
    }
