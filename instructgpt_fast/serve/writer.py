"""Tokens on their way into the JSON of a route: what both ways of asking write alike."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from instructgpt_fast.generate.requests import Drawn, Request
from instructgpt_fast.serve import asking
from instructgpt_fast.serve.answer import Token
from instructgpt_fast.serve.events import Chunks, event


class Logprobs(ABC):
    """The log-probabilities of one choice in the shape of a route."""

    def __init__(self) -> None:
        self._parts: list[dict[str, Any]] = []

    @abstractmethod
    def of(self, drawn: Drawn) -> dict[str, Any]:
        """One token's."""

    @abstractmethod
    def all(self) -> dict[str, Any]:
        """Those that were kept."""

    def keep(self, drawn: Drawn) -> None:
        """Keep one token's for the whole."""
        self._parts.append(self.of(drawn))


class Writer(ABC):
    """Puts tokens into the JSON of one route: those of a stream into events, or all into one piece."""

    kind: str
    """"object" of an answer in one piece."""
    kind_of_event: str
    """"object" of an event."""
    prefix: str
    """What an answer's id begins with."""

    def __init__(self, model: str, requests: Sequence[Request], texts: list[str], logprobs: list[Logprobs]) -> None:
        """texts: what each choice begins with, "" for nothing. logprobs: of each choice, none where not asked for."""
        self._requests = requests
        self._head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._event_head = {**self._head, "object": self.kind_of_event}
        self._texts = [[text] if text else [] for text in texts]
        self._reasons: list[str | None] = [None] * len(texts)
        self._logprobs = logprobs
        self._drawn = 0
        self._chunks: list[Chunks] = []

    @abstractmethod
    def opening(self) -> str:
        """The events before the first token."""

    @abstractmethod
    def said(self, text: str) -> dict[str, Any]:
        """The fields of a choice that hold its text, in an answer in one piece."""

    def event(self, token: Token) -> str:
        """A token's text, its log-probability or its being the last; "" for a token that has nothing to show yet."""
        choice, drawn = token.choice, token.drawn
        self._drawn += 1
        reason = asking.finish_reason(drawn)
        told = self._logprobs[choice].of(drawn) if self._logprobs else None
        if not drawn.text and reason is None and told is None:
            return ""
        return self._chunks[choice].event(drawn.text, told, reason)

    def usage(self) -> str:
        """The event with the counts of tokens, without a choice."""
        return event({**self._event_head, "choices": [], "usage": asking.usage(self._requests, self._drawn)})

    def keep(self, token: Token) -> None:
        """Take a token for the answer in one piece."""
        choice, drawn = token.choice, token.drawn
        self._drawn += 1
        if drawn.text:
            self._texts[choice].append(drawn.text)
        self._reasons[choice] = asking.finish_reason(drawn)
        if self._logprobs:
            self._logprobs[choice].keep(drawn)

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        choices = [
            {
                "index": i, **self.said("".join(texts)), "finish_reason": self._reasons[i],
                "logprobs": self._logprobs[i].all() if self._logprobs else None,
            }
            for i, texts in enumerate(self._texts)
        ]
        return {
            **self._head, "object": self.kind, "choices": choices, "usage": asking.usage(self._requests, self._drawn),
        }

    def chunks_of(self, text: str, no_text: str, *, include_usage: bool) -> list[Chunks]:
        """The events of each choice. text, no_text: as for `Chunks`. include_usage: whether counts come at the end."""
        more = {"usage": None} if include_usage else None
        return [
            Chunks(self._event_head, i, text=text, no_text=no_text, more=more) for i in range(len(self._texts))
        ]
