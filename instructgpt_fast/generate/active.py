"""The rows being decoded, as tensors that stay in their place from step to step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from instructgpt_fast.generate.row import Row


class ActiveRows:
    """Slots for `slots` rows; the n active ones are slots 0..n-1, and a step works on the first n lines of everything.

    tokens: int64 [slots], drawn last. positions: int64 [slots], where that token will stand; lengths: int32 [slots],
    the same number as the cache counts it. seeds: int64 [slots]. advance: int64 [slots], 1 where there is a row and 0
    where there is none: an idle slot stays at position 0, without a page. parameters: f32 [slots, 5], as
    ops.sample_token takes them.
    block_table: int32 [slots, table_width], the rows' pages.
    history: int64 [slots, context], prompt and completion so far padded with -1; None until a row has a repetition
        penalty. Only rows with a penalty are sure to have theirs.
    The host has a copy of everything but the history (on the CPU they are one memory): rows join, grow and leave there,
    and `upload` makes the change good on the device.
    """

    def __init__(self, slots: int, table_width: int, context: int, device: torch.device) -> None:
        self.rows: list[Row] = []
        self._slots, self._context, self._device = slots, context, device
        shapes = {
            "numbers": ((4, slots), torch.int64), "lengths": ((slots,), torch.int32),
            "parameters": ((slots, 5), torch.float32), "block_table": ((slots, table_width), torch.int32),
        }
        pinned = device.type == "cuda"
        self._host = {name: torch.zeros(s, dtype=d, pin_memory=pinned) for name, (s, d) in shapes.items()}
        self._host["block_table"].fill_(-1)
        self._shared = device.type == "cpu"
        placed = {name: t if self._shared else t.to(device) for name, t in self._host.items()}
        self._device_copy = placed
        self._numbers, self._lengths, self._parameters, self._table = (t.numpy() for t in self._host.values())
        self.tokens, self.positions, self.seeds, self.advance = placed["numbers"].unbind(0)
        self.lengths, self.parameters, self.block_table = (
            placed["lengths"], placed["parameters"], placed["block_table"])
        self.history: Tensor | None = None
        self._stale = False

    def __len__(self) -> int:
        return len(self.rows)

    def join(self, row: Row) -> None:
        """Give `row` the next slot. What is cached of it is `row.stored` tokens, and its last token comes next."""
        slot = len(self.rows)
        self.rows.append(row)
        self._numbers[:, slot] = (row.tokens[-1], row.stored, row.seed, 1)
        self._lengths[slot] = row.stored
        self._parameters[slot] = row.parameters
        self._table[slot] = -1
        self._table[slot, : len(row.pages)] = row.pages
        if row.penalised:
            if self.history is None:
                # Rows also leave between two steps, outside inference mode, where no tensor made in it may be changed.
                with torch.inference_mode(False):
                    self.history = torch.full((self._slots, self._context), -1, device=self._device)
            line = torch.full((self._context,), -1)
            line[: len(row.tokens)] = torch.tensor(row.tokens)
            self.history[slot] = line.to(self._device)
        self._stale = True

    def grow(self, slot: int, pages: list[int]) -> None:
        """Let the row in `slot` own `pages` too, after those that it has."""
        row = self.rows[slot]
        self._table[slot, len(row.pages) : len(row.pages) + len(pages)] = pages
        row.pages.extend(pages)
        self._stale = True

    def leave(self, slot: int) -> None:
        """Take the row out of `slot`; the last row takes its place."""
        last = self.rows.pop()
        end = len(self.rows)
        if slot < end:
            self.rows[slot] = last
            self._numbers[:, slot] = self._numbers[:, end]
            self._lengths[slot] = self._lengths[end]
            self._parameters[slot] = self._parameters[end]
            self._table[slot] = self._table[end]
            if self.history is not None and last.penalised:
                self.history[slot] = self.history[end]
        self._numbers[:, end] = 0
        self._lengths[end] = 0
        self._table[end] = -1
        self._stale = True

    def upload(self) -> None:
        """Bring the device up to date with the host."""
        if self._stale:
            self.restore()
        self._stale = False

    def restore(self) -> None:
        """Make the device what the host holds it to be, whatever steps have been taken there since."""
        if not self._shared:
            for name, tensor in self._device_copy.items():
                tensor.copy_(self._host[name], non_blocking=True)

    def advanced(self, tokens: np.ndarray, steps: int) -> None:
        """Note on the host that the device has taken `steps` steps; tokens: int64 [n], drawn last."""
        if not self._shared:
            count = len(tokens)
            self._numbers[0, :count] = tokens
            self._numbers[1, :count] += steps
            self._lengths[:count] += steps
