"""Prompts with their responses, packed without padding for the models and padded for the per-token arithmetic.

Models see one long row of tokens with `cu_seqlens`, so that no time goes into padding. Rewards, advantages and
losses live in right-padded [B, R] tensors whose `loss_mask` says which tokens were really generated; the flat
order of the packed response tokens is the row-major order of that mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from instructgpt_fast.errors import DataError

__all__ = ["PackedBatch", "chunks_by_tokens", "pack", "pad", "padded_mask"]


@dataclass(frozen=True)
class PackedBatch:
    """S prompts, each followed by its response, in one row of N tokens.

    tokens: int64 [N]. cu_seqlens: int32 [S + 1], where each sequence begins, then N.
    loss_mask: bool [N], True on response tokens, EOS included.
    """

    tokens: Tensor
    cu_seqlens: Tensor
    loss_mask: Tensor

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1


def pack(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device | str = "cpu"
) -> PackedBatch:
    """Pack prompts and their responses in order; raises DataError when a prompt or a response holds no token."""
    tokens: list[int] = []
    counted: list[bool] = []
    ends = [0]
    for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        if not prompt or not response:
            empty = "prompt" if not prompt else "response"
            raise DataError(f"pack: every {empty} needs at least one token, got none at index {index}; drop it.")
        tokens += prompt
        tokens += response
        counted += [False] * len(prompt) + [True] * len(response)
        ends.append(len(tokens))
    return PackedBatch(
        torch.tensor(tokens, dtype=torch.int64, device=device),
        torch.tensor(ends, dtype=torch.int32, device=device),
        torch.tensor(counted, dtype=torch.bool, device=device),
    )


def padded_mask(lengths: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """loss_mask of right-padded responses: bool [B, R], True in the first lengths[b] places, R the longest."""
    columns = torch.arange(max(lengths, default=0), device=device)
    return columns < torch.tensor(list(lengths), device=device)[:, None]


def pad(flat: Tensor, loss_mask: Tensor) -> Tensor:
    """Lay packed per-token numbers out in right-padded rows; differentiable.

    flat: f32 [n], one number a response token in packed order. loss_mask: bool [B, R] with n True.
    Returns f32 [B, R], 0 at uncounted positions.
    """
    return torch.zeros(loss_mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(loss_mask, flat)


def chunks_by_tokens(lengths: Sequence[int], max_tokens: int) -> Iterator[slice]:
    """Consecutive slices whose lengths sum to at most max_tokens; a longer single sequence is a slice of its own."""
    start = total = 0
    for index, length in enumerate(lengths):
        if index > start and total + length > max_tokens:
            yield slice(start, index)
            start, total = index, 0
        total += length
    if start < len(lengths):
        yield slice(start, len(lengths))
