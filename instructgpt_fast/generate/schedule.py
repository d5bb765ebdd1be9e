"""Which rows wait, are prefilled and decode, and which pages they hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from instructgpt_fast.generate.active import ActiveRows
from instructgpt_fast.generate.pages import PagePool
from instructgpt_fast.generate.prefixes import PrefixTree
from instructgpt_fast.generate.row import Row
from instructgpt_fast.model import Chunk


class Schedule:
    """Rows in the order in which they came: the older one has the room, the younger one waits.

    A row waits, then holds a slot and the pages of its tokens, is prefilled in chunks, and decodes. When pages run out
    the youngest row gives up its own and waits at the front with what it has drawn; it is prefilled again later and
    goes on as if nothing had happened.
    """

    def __init__(
        self, pool: PagePool, page_size: int, tree: PrefixTree | None, active: ActiveRows, slots: int,
        refill_share: float,
    ) -> None:
        self._pool, self._size, self._tree, self._slots = pool, page_size, tree, slots
        self._refill = max(1, slots * refill_share)
        self.active = active
        self.waiting: deque[Row] = deque()
        self.prefilling: list[Row] = []
        self.preempted = 0
        self.prompt_tokens = 0
        self.shared_prompt_tokens = 0

    def admit(self) -> None:
        """Let waiting rows have a slot and pages for their tokens, oldest first, while there is room for them."""
        taken = len(self.active) + sum(1 + len(row.followers) for row in self.prefilling)
        free = self._slots - taken
        if free < self._refill:
            return
        while self.waiting and free:
            row = self.waiting[0]
            if self._shared_soon(row):
                return
            # Alone a row has all pages, and submit has seen that they are enough.
            if not self._seat(row, spare=len(self.active) if taken else 0):
                return
            self.waiting.popleft()
            self.prefilling.append(row)
            free -= 1
            taken += 1
            while free and not row.drawn and self.waiting and self._follows(self.waiting[0], row):
                row.followers.append(self.waiting.popleft())
                free -= 1

    def prefill(self, budget: int, store: Callable[[list[Chunk]], None]) -> None:
        """Have the next tokens stored, oldest row first, at most `budget` in all.

        A row's last token is left: a step runs it, and draws what comes after.
        """
        found = []
        for row in self.prefilling:
            tokens = row.tokens[row.stored : min(row.stored + budget, len(row.tokens) - 1)]
            if tokens:
                found.append((row, Chunk(tokens, row.stored, row.pages)))
                budget -= len(tokens)
        if found:
            store([chunk for _, chunk in found])
        # Only now: of a store that was interrupted nothing may be found by those who come later.
        for row, chunk in found:
            row.stored += len(chunk.tokens)

    def begin(self) -> None:
        """Let the rows whose tokens are stored, all but the last, decode, and with them those that follow them."""
        ready = [row for row in self.prefilling if row.stored == len(row.tokens) - 1]
        for row in ready:
            self.prefilling.remove(row)
            if self._tree is not None:
                self._tree.insert(row.tokens[: row.stored], row.pages)
            for joining in (row, *self._fork(row)):
                self.active.join(joining)

    def grow(self, steps: int) -> None:
        """Let every active row have pages for `steps` more tokens, at the cost of the youngest where there are none."""
        short = [row for row in self.active.rows if len(row.pages) * self._size < row.stored + steps]
        for row in sorted(short, key=_age):
            needed = -(-(row.stored + steps) // self._size) - len(row.pages)
            while row in self.active.rows and self._pool.available < needed:
                self._preempt()
            if row in self.active.rows:
                self.active.grow(self.active.rows.index(row), self._pool.claim(needed))

    def finish(self, slot: int) -> None:
        """Let the row in `slot` leave; the last row takes its slot."""
        row = self.active.rows[slot]
        self.active.leave(slot)
        self._release(row)

    def cancel(self, ticket: int | None) -> None:
        """Let every row of a request leave, wherever it stands; of all requests when `ticket` is None."""
        for slot in reversed(range(len(self.active))):
            if ticket in (None, self.active.rows[slot].ticket):
                self.finish(slot)
        for row in [row for row in self.prefilling if ticket in (None, row.ticket)]:
            self.prefilling.remove(row)
            self._release(row)
        self.waiting = deque(row for row in self.waiting if ticket not in (None, row.ticket))

    def _seat(self, row: Row, spare: int) -> bool:
        known = self._tree.find(row.tokens[:-1]) if self._tree is not None else []
        needed = -(-len(row.tokens) // self._size) - len(known)
        # Room for the first drawn token of the rows that decode is left, or else one of them would have to go at once.
        if needed + spare > self._pool.available:
            self._pool.release(known)
            return False
        row.pages = known + self._pool.claim(needed)
        row.stored = len(known) * self._size
        self._count(row)
        return True

    def _shared_soon(self, row: Row) -> bool:
        """Whether a prompt on its way begins with more of this row's pages than are stored: they are worth the wait."""
        if self._tree is None or not self.prefilling:
            return False
        known = self._tree.find(row.tokens[:-1])
        self._pool.release(known)
        end = (len(known) + 1) * self._size
        return end < len(row.tokens) and any(other.tokens[:end] == row.tokens[:end] for other in self.prefilling)

    def _fork(self, row: Row) -> list[Row]:
        """Give the rows that follow `row` pages of their own, as far as there are any; the others wait again."""
        followers, row.followers = row.followers, []
        served = min(len(followers), self._pool.available) if row.stored % self._size else len(followers)
        forks = self._pool.fork([(row.pages, row.stored)] * served)
        for follower, pages in zip(followers, forks, strict=False):
            follower.pages, follower.stored = pages, row.stored
            self._count(follower)
        self._wait_again(followers[served:])
        return followers[:served]

    def _count(self, row: Row) -> None:
        if not row.counted:  # not again when it comes back from waiting
            row.counted = True
            self.prompt_tokens += row.prompt_length
            self.shared_prompt_tokens += row.stored

    def _follows(self, other: Row, row: Row) -> bool:
        return other.ticket == row.ticket and not other.drawn

    def _preempt(self) -> None:
        self.preempted += 1
        row = max((*self.active.rows, *self.prefilling), key=_age)
        if row in self.prefilling:
            self.prefilling.remove(row)
        else:
            self.active.leave(self.active.rows.index(row))
        self._release(row)
        followers, row.followers = row.followers, []
        self._wait_again([row, *followers])

    def _wait_again(self, rows: Iterable[Row]) -> None:
        """Put rows back in front of all that are younger: few wait before them, if any."""
        for row in rows:
            later = (place for place, other in enumerate(self.waiting) if _age(other) > _age(row))
            self.waiting.insert(next(later, len(self.waiting)), row)

    def _release(self, row: Row) -> None:
        if self._tree is not None:
            self._tree.insert(row.tokens[: row.stored], row.pages)
        self._pool.release(row.pages)
        row.pages, row.stored = [], 0


def _age(row: Row) -> tuple[int, int]:
    """Greater for a younger row."""
    return row.ticket, row.index
