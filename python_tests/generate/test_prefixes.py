"""The tree of stored pages: what is found, what is kept, and what goes first."""

from __future__ import annotations

from instructgpt_fast.generate.pages import PagePool
from instructgpt_fast.generate.prefixes import PrefixTree
from instructgpt_fast.model import KVCache

from ..model.reference import SMALL

SIZE = 4


def tree_of(pages: int) -> tuple[PrefixTree, PagePool]:
    pool = PagePool(KVCache(SMALL, pages, page_size=SIZE))
    return PrefixTree(pool, SIZE), pool


def stored(tree: PrefixTree, pool: PagePool, tokens: list[int]) -> list[int]:
    """Insert a sequence and let go of it; returns its full pages."""
    pages = pool.claim(-(-len(tokens) // SIZE))
    tree.insert(tokens, pages)
    full = pages[: len(tokens) // SIZE]
    pool.release(pages)
    return full


def test_the_longest_equal_beginning_is_found() -> None:
    tree, pool = tree_of(8)
    pages = stored(tree, pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert len(pages) == 2
    assert tree.find([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) == pages
    assert tree.find([1, 2, 3, 4, 5, 6, 7, 0, 9]) == pages[:1]
    assert tree.find([1, 2, 3]) == []
    assert tree.find([5, 6, 7, 8]) == [], "a page belongs to what stands before it"
    assert [pool.holders(page) for page in pages] == [2, 1]


def test_an_equal_page_is_stored_once() -> None:
    tree, pool = tree_of(8)
    tokens = list(range(9))
    first, second = pool.claim(3), pool.claim(3)
    own = list(second)
    tree.insert(tokens, first)
    tree.insert(tokens, second)
    assert second == [*first[:2], own[2]]
    assert [pool.holders(page) for page in (*first, *own)] == [2, 2, 1, 0, 0, 1]
    pool.release(first)
    pool.release(second)
    assert pool.kept == 2
    assert pool.available == 8


def test_room_is_made_leaf_by_leaf() -> None:
    tree, pool = tree_of(4)
    stored(tree, pool, [1, 1, 1, 1, 2, 2, 2, 2])
    stored(tree, pool, [1, 1, 1, 1, 3, 3, 3, 3])
    held = tree.find([1, 1, 1, 1, 3, 3, 3, 3])
    assert (pool.free, pool.kept) == (1, 3)
    taken = pool.claim(2)
    assert tree.find([1, 1, 1, 1, 2, 2, 2, 2]) == held[:1], "what nobody holds gave way"
    pool.release(held[:1])
    pool.release(held)
    pool.release(taken)
    assert len(pool.claim(4)) == 4
    assert tree.find([1, 1, 1, 1]) == []
    assert pool.kept == 0


def test_forgetting_leaves_pages_with_their_holders() -> None:
    tree, pool = tree_of(4)
    stored(tree, pool, [1, 1, 1, 1, 2, 2, 2, 2])
    held = tree.find([1, 1, 1, 1])
    tree.clear()
    assert pool.free == 3
    assert pool.holders(held[0]) == 1
    assert tree.find([1, 1, 1, 1]) == []
    pool.release(held)
    assert pool.free == 4
