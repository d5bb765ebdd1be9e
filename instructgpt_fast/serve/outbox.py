"""Tokens on their way from the worker's thread to the event loop: first and last ones at once, the others together.

Not thread-safe: the worker's thread alone uses it.
"""

from __future__ import annotations

from instructgpt_fast.serve.answer import Answer, Token

GATHER_SECONDS = 0.01
"""How long a token may wait for those after it.

To wake the loop costs it more than an event, and it takes the core and the interpreter's lock just when the engine's
next step begins. A small model draws a token a millisecond, a screen shows a picture every 17: a reader sees no delay.
"""


class Outbox:
    """The waiting tokens of every answer, in the order in which they were drawn."""

    def __init__(self, most: int) -> None:
        """most: tokens of one answer that may wait."""
        self._most = most
        self._waiting: dict[Answer, list[Token]] = {}
        self._urgent: dict[Answer, None] = {}
        self._since = 0.0

    def add(self, answer: Answer, token: Token, *, urgent: bool) -> None:
        """Keep a token. urgent: whether it, and with it all before it, is due at the next look."""
        if not self._waiting:
            self._since = token.time
        waiting = self._waiting.setdefault(answer, [])
        waiting.append(token)
        if urgent or len(waiting) >= self._most:
            self._urgent[answer] = None

    def drop(self, answer: Answer) -> None:
        """Forget the tokens of an answer."""
        self._waiting.pop(answer, None)
        self._urgent.pop(answer, None)

    def due(self, next_look: float) -> list[tuple[Answer, list[Token]]]:
        """Take what must not wait until the next look, at about this time (time.monotonic())."""
        if next_look > self._since + GATHER_SECONDS:
            taken = list(self._waiting.items())
            self._waiting.clear()
        else:
            taken = [(answer, self._waiting.pop(answer)) for answer in self._urgent]
        self._urgent.clear()
        return taken
