"""Who holds which page of a key-value cache: claimed, shared, forked, given back, kept in case they are needed again.

After Kwon et al. 2023, arXiv:2309.06180, section 4: sequences with the same beginning share its pages, and copy a page
before they go on writing into it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence

from instructgpt_fast.model import KVCache

__all__ = ["PagePool"]


class PagePool:
    """Counts who holds each page of a cache.

    A page is free, held (by as many sequences as its count says), or idle: held by nobody and kept for its contents,
    until room is needed; then the one that has been idle longest goes first.
    """

    def __init__(self, cache: KVCache) -> None:
        """Take over all pages of `cache`."""
        self._cache = cache
        self._counts = [0] * cache.pages
        self._free = list(range(cache.pages - 1, -1, -1))
        self._kept: dict[int, Callable[[int], None]] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Pages that hold nothing of use."""
        return len(self._free)

    @property
    def kept(self) -> int:
        """Pages kept for their contents, held or idle."""
        return len(self._kept)

    @property
    def available(self) -> int:
        """Pages that can be claimed: free or idle."""
        return len(self._free) + len(self._idle)

    def holders(self, page: int) -> int:
        """How many sequences hold the page."""
        return self._counts[page]

    def claim(self, count: int) -> list[int]:
        """Give `count` pages to one holder, dropping idle ones when too few are free.

        Raises ValueError, and gives none, when fewer are available.
        """
        if count > self.available:
            raise ValueError(
                f"PagePool: {count} pages were asked for, {self.available} of {len(self._counts)} are available; give "
                "some back first."
            )
        while len(self._free) < count:
            page, _ = self._idle.popitem(last=False)
            self._kept.pop(page)(page)
            self._free.append(page)
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._counts[page] = 1
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """Count one more holder of each page, which must be held or kept."""
        for page in pages:
            if not self._counts[page]:
                if page not in self._kept:
                    raise ValueError(f"PagePool: page {page} holds nothing, so it cannot be shared; claim pages.")
                self._idle.pop(page)
            self._counts[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Count one holder of each page less. The last of the pages, which needs the others, becomes idle first."""
        for page in reversed(pages):
            if not self._counts[page]:
                raise ValueError(f"PagePool: page {page} is held by nobody; give back each page once.")
            self._counts[page] -= 1
            if self._counts[page]:
                continue
            if page in self._kept:
                self._idle[page] = None
            else:
                self._free.append(page)

    def fork(self, sequences: Sequence[tuple[Sequence[int], int]]) -> list[list[int]]:
        """Make a second holder of each sequence, which may go on differently.

        sequences: the pages of each, in order, and how many tokens lie in them; one may be named several times.
        Returns the pages of each new holder: full pages are the old ones, held once more; a last page that is partly
        filled is copied into a claimed one, all copies in one call. Give the pages back with `release`.
        Raises ValueError, and changes nothing, when fewer pages are available than must be copied.
        """
        size = self._cache.page_size
        partly = [tokens % size != 0 for _, tokens in sequences]
        full = [list(pages[: tokens // size]) for pages, tokens in sequences]
        claimed = iter(self.claim(sum(partly)))
        sources, targets = [], []
        for shared, cut, (pages, tokens) in zip(full, partly, sequences, strict=True):
            self.share(shared)
            if cut:
                sources.append(pages[tokens // size])
                targets.append(next(claimed))
                shared.append(targets[-1])
        if sources:
            self._cache.copy_pages(sources, targets)
        return full

    def keep(self, page: int, forget: Callable[[int], None]) -> None:
        """Let a held page stay when its holders have gone; `forget` is called with it when its room is taken."""
        if not self._counts[page] or page in self._kept:
            raise ValueError(f"PagePool: only a held page that is not kept yet can be kept, got page {page}.")
        self._kept[page] = forget

    def drop(self, pages: Collection[int]) -> None:
        """Keep these pages no longer, without calling `forget`: idle ones become free."""
        for page in pages:
            del self._kept[page]
            if page in self._idle:
                del self._idle[page]
                self._free.append(page)
