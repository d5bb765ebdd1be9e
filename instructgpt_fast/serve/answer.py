"""What the worker's thread tells a request on the event loop: accepted, then tokens, or why there will be none.

Everything here runs on the event loop; the worker reaches it by `call_soon_threadsafe` alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from instructgpt_fast.generate.requests import Drawn
from instructgpt_fast.serve.errors import ApiError


class Token(NamedTuple):
    """One token of one answer. choice: which answer of the request. time: when it was drawn, time.monotonic()."""

    choice: int
    drawn: Drawn
    time: float


class Answer:
    """The tokens of one request, which wait here until its client has read those before.

    The engine draws all rows together and cannot hold one back, so a reader that falls further behind than `limit`
    tokens ends its request instead: memory stays bounded, and the rows go to those who read.
    """

    def __init__(self, model: str, choices: int, limit: int) -> None:
        self.model, self.choices = model, choices
        self.tokens_drawn = 0
        self.failure: ApiError | None = None
        self.asked = time.monotonic()
        # When each answer's newest token was drawn; an answer has its place once it has one.
        self.newest: dict[int, float] = {}
        self._limit = limit
        self._open = choices
        self._unread: list[Token] = []
        self._accepted = False
        self._news = asyncio.Event()
        self.failed = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come: every answer has its last token, or the request has failed."""
        return self._open == 0 or self.failure is not None

    @property
    def read(self) -> bool:
        """Whether every token of every answer has been read."""
        return self._open == 0 and not self._unread

    @property
    def age(self) -> float:
        """Seconds since the request was asked."""
        return time.monotonic() - self.asked

    def accept(self) -> None:
        """The engine has taken the request."""
        self._accepted = True
        self._news.set()

    def add(self, tokens: list[Token], overflow: ApiError) -> bool:
        """Take tokens as they are drawn; False, and the request fails with `overflow`, when too many are unread."""
        if self.ended:
            return True
        if len(self._unread) + len(tokens) > self._limit:
            self.fail(overflow)
            return False
        self._unread += tokens
        self._open -= sum(token.drawn.finish_reason is not None for token in tokens)
        self.tokens_drawn += len(tokens)
        self._news.set()
        return True

    def fail(self, failure: ApiError) -> None:
        """End the request; what is unread is dropped. Ignored once the request has ended."""
        if not self.ended:
            self.failure = failure
            self._unread.clear()
            self.failed.set()
            self._news.set()

    async def accepted(self) -> None:
        """Wait until the engine has taken the request; raises the ApiError with which it was refused."""
        while not self._accepted and self.failure is None:
            await self._next_news()
        if self.failure is not None:
            raise self.failure

    async def batches(self) -> AsyncIterator[list[Token]]:
        """Tokens in the order in which they were drawn, all that have come since the last look, to the end.

        Raises the ApiError of a request that fails.
        """
        while True:
            if self.failure is not None:
                raise self.failure
            if self._unread:
                batch, self._unread = self._unread, []
                yield batch
            elif self._open == 0:
                return
            else:
                await self._next_news()

    async def _next_news(self) -> None:
        await self._news.wait()
        self._news.clear()
