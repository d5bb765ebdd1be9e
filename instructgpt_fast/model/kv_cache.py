"""Keys and values of past tokens, kept in pages so that sequences of very different length share one pool.

Not covered: who owns which page; see generate/pages.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instructgpt_fast.model.config import GPTConfig

PAGE_SIZE = 16


class KVCache:
    """Room for the keys and values of `pages` pages of `page_size` tokens each; their contents are undefined at first.

    keys, values: [n_layer, pages, page_size, n_head, d_head] in `dtype`, contiguous.
    Memory: 2 * n_layer * d_model * itemsize bytes for every token.
    """

    def __init__(
        self,
        config: GPTConfig,
        pages: int,
        *,
        page_size: int = PAGE_SIZE,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Allocate the pages; raises ValueError unless there is at least one, of at least one token."""
        if pages < 1 or page_size < 1:
            raise ValueError(
                f"KVCache: pages and page_size must be positive, got pages={pages}, page_size={page_size}; choose "
                "others."
            )
        self.pages, self.page_size = pages, page_size
        shape = (config.n_layer, pages, page_size, config.n_head, config.d_head)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)

    def pages_for(self, tokens: int) -> int:
        """How many pages `tokens` tokens of one sequence lie in."""
        return -(-tokens // self.page_size)

    def slots(self, pages: Sequence[int], begin: int, end: int) -> Tensor:
        """Return where positions begin..end-1 of a sequence lie in a layer seen as [pages * page_size, ...].

        pages: the sequence's own, in order. Returns int64 [end - begin] on the CPU.
        """
        positions = torch.arange(begin, end)
        owned = torch.tensor(pages, dtype=torch.int64)
        return owned[positions // self.page_size] * self.page_size + positions % self.page_size

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy pages in all layers; no target may be a source of the same call."""
        into, out_of = (torch.tensor(pages, device=self.keys.device) for pages in (targets, sources))
        for stored in (self.keys, self.values):
            stored.index_copy_(1, into, stored.index_select(1, out_of))
