"""Full pages by the tokens that lead to them, so that equal beginnings are computed and stored once."""

from __future__ import annotations

from collections.abc import Sequence

from instructgpt_fast.generate.pages import PagePool

__all__ = ["PrefixTree"]


class _Node:
    """One page; `children` by the token ids of the page that follows."""

    __slots__ = ("children", "key", "page", "parent")

    def __init__(self, page: int, parent: _Node | None, key: tuple[int, ...]) -> None:
        self.page, self.parent, self.key = page, parent, key
        self.children: dict[tuple[int, ...], _Node] = {}


class PrefixTree:
    """A trie over pages of `page_size` token ids: what it finds has the same ids, not just the same hash of them.

    Whoever holds a page of the tree holds all above it, so among idle pages a child always became idle before its
    parent, and the pool, which drops the longest idle one, takes leaves first.
    """

    def __init__(self, pool: PagePool, page_size: int) -> None:
        self._pool, self._size = pool, page_size
        self._root = _Node(-1, None, ())
        self._nodes: dict[int, _Node] = {}

    def find(self, tokens: Sequence[int]) -> list[int]:
        """Return the longest run of stored pages that `tokens` begins with, now held by the caller too."""
        node, pages = self._root, []
        for begin in range(0, len(tokens) - self._size + 1, self._size):
            child = node.children.get(tuple(tokens[begin : begin + self._size]))
            if child is None:
                break
            pages.append(child.page)
            node = child
        self._pool.share(pages)
        return pages

    def insert(self, tokens: Sequence[int], pages: list[int]) -> None:
        """Store the full pages of a sequence, all held by the caller.

        tokens: ids whose keys and values are stored; pages: the sequence's. Where the tree has an equal page already,
        the caller's is given back and replaced in `pages` by the tree's: both hold the same numbers.
        """
        node = self._root
        for place in range(len(tokens) // self._size):
            key = tuple(tokens[place * self._size : (place + 1) * self._size])
            child = node.children.get(key)
            if child is None:
                child = node.children[key] = _Node(pages[place], node, key)
                self._nodes[pages[place]] = child
                self._pool.keep(pages[place], self._forget)
            elif child.page != pages[place]:
                self._pool.share([child.page])
                self._pool.release([pages[place]])
                pages[place] = child.page
            node = child

    def clear(self) -> None:
        """Forget everything; pages that are held stay with their holders."""
        self._pool.drop(self._nodes)
        self._nodes.clear()
        self._root.children.clear()

    def _forget(self, page: int) -> None:
        node = self._nodes.pop(page)
        assert node.parent is not None and not node.children, "a page was dropped before those that need it"
        del node.parent.children[node.key]
