"""Position ids: each sequence of a batch counts its tokens from 0."""

from __future__ import annotations

import torch
from torch import Tensor


def packed_positions(tokens: Tensor, cu_seqlens: Tensor | None, n_positions: int) -> Tensor:
    """Return the position of every token within its own sequence.

    tokens: [B, T], or packed [N] with cu_seqlens int32 [S + 1] (empty sequences allowed).
    n_positions: the context length of the model.
    Returns int64 of the shape of tokens, or [1, T] broadcast to it.
    Raises ValueError when a sequence is longer than n_positions. A packed batch on an accelerator is not looked into,
    because that would wait for the device; there the caller answers for the lengths.
    """
    if cu_seqlens is None:
        length = tokens.shape[1]
        _check_length(length, n_positions)
        return torch.arange(length, device=tokens.device).expand(tokens.shape)
    lengths = cu_seqlens.diff()
    if tokens.device.type == "cpu" and not torch.compiler.is_compiling() and lengths.numel():
        _check_length(int(lengths.max()), n_positions)
    starts = torch.repeat_interleave(cu_seqlens[:-1], lengths, output_size=tokens.shape[0])
    return torch.arange(tokens.shape[0], device=tokens.device) - starts


def _check_length(length: int, n_positions: int) -> None:
    if length > n_positions:
        raise ValueError(
            f"GPT: a sequence must fit the context of {n_positions} tokens, got {length}; "
            "shorten it or use a model with more positions."
        )
