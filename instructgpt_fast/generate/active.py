"""The rows being decoded, as tensors that one step reads and advances together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class ActiveRows:
    """State of B rows; entry b of every field belongs to the same completion.

    prompts: the prompt's number. rows: the row claimed in the cache. tokens: int64 [B], drawn last.
    done: bool [B], the completion has ended; nothing of the row changes any more.
    positions: int64 [B], where the next token will stand; lengths: int32 [B], the same number as the cache counts it.
    block_table: int32 [B, M], the rows' pages. seeds: int64 [B].
    cursors, ends: int64 [B], where in the flat results the next token goes, and where the row's share ends.
    history: int64 [B, L], prompt and completion so far padded with -1; None without a repetition penalty.
    """

    prompts: list[int]
    rows: list[int]
    tokens: Tensor
    done: Tensor
    positions: Tensor
    lengths: Tensor
    block_table: Tensor
    seeds: Tensor
    cursors: Tensor
    ends: Tensor
    history: Tensor | None

    def select(self, places: Tensor) -> ActiveRows:
        """Return the rows at `places`, int64 [n]."""
        kept = places.tolist()
        return ActiveRows(
            prompts=[self.prompts[i] for i in kept],
            rows=[self.rows[i] for i in kept],
            tokens=self.tokens[places],
            done=self.done[places],
            positions=self.positions[places],
            lengths=self.lengths[places],
            block_table=self.block_table[places],
            seeds=self.seeds[places],
            cursors=self.cursors[places],
            ends=self.ends[places],
            history=None if self.history is None else self.history[places],
        )

    def join(self, other: ActiveRows) -> ActiveRows:
        """Return these rows followed by the other ones."""
        both = self.history is not None and other.history is not None
        return ActiveRows(
            prompts=self.prompts + other.prompts,
            rows=self.rows + other.rows,
            tokens=torch.cat([self.tokens, other.tokens]),
            done=torch.cat([self.done, other.done]),
            positions=torch.cat([self.positions, other.positions]),
            lengths=torch.cat([self.lengths, other.lengths]),
            block_table=torch.cat([self.block_table, other.block_table]),
            seeds=torch.cat([self.seeds, other.seeds]),
            cursors=torch.cat([self.cursors, other.cursors]),
            ends=torch.cat([self.ends, other.ends]),
            history=torch.cat([self.history, other.history]) if both else None,  # type: ignore[list-item]
        )
