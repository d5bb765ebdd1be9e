"""Pages are counted: claimed, shared, forked, kept and given back, none lost and none given twice."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast.generate.pages import PagePool
from instructgpt_fast.model import KVCache

from ..model.reference import SMALL


def pool_of(pages: int, page_size: int = 4) -> tuple[PagePool, KVCache]:
    cache = KVCache(SMALL, pages, page_size=page_size)
    for stored in (cache.keys, cache.values):
        stored.copy_(torch.randn(stored.shape, generator=torch.Generator().manual_seed(1)))
    return PagePool(cache), cache


def test_claimed_pages_come_back() -> None:
    pool, _ = pool_of(5)
    first, second = pool.claim(2), pool.claim(3)
    assert sorted(first + second) == list(range(5))
    assert pool.available == 0
    pool.release(first)
    assert pool.available == pool.free == 2
    assert sorted(pool.claim(2)) == sorted(first)


def test_a_shared_page_stays_until_its_last_holder_goes() -> None:
    pool, _ = pool_of(3)
    pages = pool.claim(2)
    pool.share(pages[:1])
    pool.release(pages)
    assert [pool.holders(page) for page in pages] == [1, 0]
    assert pool.free == 2
    pool.release(pages[:1])
    assert pool.free == 3


def test_what_cannot_be_done_changes_nothing() -> None:
    pool, _ = pool_of(3)
    pages = pool.claim(2)
    with pytest.raises(ValueError, match="2 pages were asked for, 1 of 3 are available"):
        pool.claim(2)
    with pytest.raises(ValueError, match="2 pages were asked for"):
        pool.fork([(pages, 5), (pages, 7)])
    assert pool.free == 1
    pool.release(pages)
    with pytest.raises(ValueError, match="held by nobody"):
        pool.release(pages[:1])
    with pytest.raises(ValueError, match="holds nothing, so it cannot be shared"):
        pool.share(pages[:1])
    with pytest.raises(ValueError, match="only a held page"):
        pool.keep(pages[0], lambda page: None)
    assert pool.free == 3


@pytest.mark.parametrize(("tokens", "copied"), [(8, 0), (9, 1), (11, 1), (3, 1), (4, 0)])
def test_a_fork_shares_full_pages_and_copies_the_last(tokens: int, copied: int) -> None:
    pool, cache = pool_of(8)
    pages = pool.claim(3)
    keys, values = cache.keys.clone(), cache.values.clone()
    (fork,) = pool.fork([(pages, tokens)])
    full = tokens // 4
    assert fork[:full] == pages[:full]
    assert len(fork) == full + copied
    assert pool.free == 8 - 3 - copied
    if copied:
        assert fork[full] not in pages
        for stored, before in ((cache.keys, keys), (cache.values, values)):
            assert torch.equal(stored[:, fork[full]], before[:, pages[full]])
            assert torch.equal(stored[:, pages], before[:, pages])
    pool.release(pages)
    pool.release(fork)
    assert pool.free == 8


def test_many_forks_in_one_call() -> None:
    """As beams go on: one sequence twice, another once, then the old holders go."""
    pool, cache = pool_of(10)
    first, second = pool.claim(2), pool.claim(2)
    forks = pool.fork([(first, 7), (second, 6), (first, 7)])
    pool.release(first)
    pool.release(second)
    assert len({fork[-1] for fork in forks}) == 3
    assert pool.holders(forks[0][0]) == 2
    assert torch.equal(cache.values[:, forks[0][1]], cache.values[:, forks[2][1]])
    for fork in forks:
        pool.release(fork)
    assert pool.free == 10


def test_kept_pages_give_way_when_room_is_needed_longest_idle_first() -> None:
    pool, _ = pool_of(4)
    gone: list[int] = []
    old, new = pool.claim(2), pool.claim(2)
    for page in old + new:
        pool.keep(page, gone.append)
    pool.release(old)
    pool.release(new)
    assert (pool.free, pool.available, pool.kept) == (0, 4, 4)
    pool.share(old)  # found again, so it is the newer one from now on
    pool.release(old)
    assert len(pool.claim(3)) == 3
    assert gone == [new[1], new[0], old[1]], "the end of a sequence goes before its beginning"
    assert (pool.free, pool.available, pool.kept) == (0, 1, 1)
    pool.drop([old[0]])
    assert (pool.free, pool.available, pool.kept) == (1, 1, 0)
