"""Keys and values of past tokens, kept in pages so that rows of very different length share one pool."""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt_fast.model.config import GPTConfig

PAGE_SIZE = 16


class KVCache:
    """A pool of pages for `batch` rows, each row owning the pages listed in its line of the block table.

    keys, values: [n_layer, P, page_size, n_head, d_head] in `dtype`.
    block_table: int32 [batch, M]; entry m of a row is the page of its tokens m * page_size and after, -1 where
        it claimed none.
    lengths: int32 [batch], how many tokens of each row are stored.
    Memory: 2 * n_layer * d_model * itemsize bytes for every token of batch * max_tokens, rounded up to pages.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        max_tokens: int,
        *,
        page_size: int = PAGE_SIZE,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Allocate room for `batch` rows of up to `max_tokens` tokens; raises ValueError when it cannot be used."""
        if batch < 1 or page_size < 1 or not 1 <= max_tokens <= config.n_positions:
            raise ValueError(
                f"KVCache: batch and page_size must be positive and max_tokens within 1..{config.n_positions} (the "
                f"context), got batch={batch}, page_size={page_size}, max_tokens={max_tokens}; choose others."
            )
        self.page_size = page_size
        self.max_tokens = max_tokens
        self.pages_per_row = -(-max_tokens // page_size)
        pages = batch * self.pages_per_row
        shape = (config.n_layer, pages, page_size, config.n_head, config.d_head)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        # No page is -1, which every user of the table refuses: a row that outgrows its claim must not reach another's.
        self.block_table = torch.full((batch, self.pages_per_row), -1, dtype=torch.int32, device=device)
        self.lengths = torch.zeros(batch, dtype=torch.int32, device=device)
        self._free_pages = list(range(pages))
        self._free_rows = list(range(batch))
        self._pages_of: dict[int, list[int]] = {}

    @property
    def free_rows(self) -> int:
        """How many rows can still be claimed."""
        return len(self._free_rows)

    def claim(self, tokens: int) -> int:
        """Reserve a row and the pages for `tokens` tokens in all, and return the row's index.

        Raises ValueError when no row or too few pages are free; `free` gives both back.
        """
        needed = -(-tokens // self.page_size)
        if not 1 <= tokens <= self.max_tokens or not self._free_rows or needed > len(self._free_pages):
            raise ValueError(
                f"KVCache: a row needs 1..{self.max_tokens} tokens, a free row and free pages, got {tokens} tokens "
                f"({needed} pages) with {len(self._free_rows)} rows and {len(self._free_pages)} pages free; "
                "free a row or make the cache larger."
            )
        row = self._free_rows.pop(0)
        pages = [self._free_pages.pop(0) for _ in range(needed)]
        self._pages_of[row] = pages
        self.block_table[row, :needed] = torch.tensor(pages, dtype=torch.int32)
        self.lengths[row] = 0
        return row

    def free(self, row: int) -> None:
        """Give back a claimed row with its pages; raises ValueError when the row is not claimed."""
        if row not in self._pages_of:
            raise ValueError(f"KVCache: row {row} is not claimed, so it cannot be freed; free each row once.")
        self._free_pages.extend(self._pages_of.pop(row))
        self._free_rows.append(row)
        self.block_table[row] = -1
        self.lengths[row] = 0

    def slots(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Return where tokens lie in the pool seen as [P * page_size, ...]: int64, of the shape of positions.

        rows: int64, the row of each token; positions: int64 of the same shape, its place in the row.
        """
        pages = self.block_table[rows, positions // self.page_size].long()
        return pages * self.page_size + positions % self.page_size
