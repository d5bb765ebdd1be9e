"""Text from tokens as they come, ended by stop strings that are never shown."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Self

from instructgpt_fast.tokenizer import Tokenizer

__all__ = ["StopText"]


class StopText:
    """Turns one completion's tokens into the text that may be shown, and sees when a stop string is complete.

    Text waits while it could be the beginning of a stop string, or of a character whose bytes are cut between tokens.
    The text ends before the stop string that is complete first, character by character, wherever the tokens' bounds
    lie; of two that are complete with the same character the longer one counts.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), stop_ids: Collection[int] = ()) -> None:
        """Begin a completion. stop: texts, none empty. stop_ids: tokens that give no text, as special tokens do."""
        self._stream = tokenizer.text_stream()
        self._stop = tuple(stop)
        self._silent = frozenset(stop_ids)
        self._held = ""
        self._stopped = False

    def push(self, token: int) -> tuple[str, bool]:
        """Take the next token; return the text that may be shown now, and whether a stop string is complete.

        After that every further call returns ("", True). Raises DataError for an id outside the vocabulary.
        """
        if self._stopped or token in self._silent:
            return "", self._stopped
        return self._take(self._stream.push(token)), self._stopped

    def finish(self) -> str:
        """Return what waited and is text after all, for a completion that ends otherwise; "" after a stop string."""
        shown = self._take(self._stream.finish())
        rest, self._held = self._held, ""
        return shown + rest

    def fork(self) -> Self:
        """Return a second reader that has taken the same tokens and may go on with others."""
        other = copy.copy(self)
        other._stream = self._stream.fork()
        return other

    def _take(self, piece: str) -> str:
        if self._stopped:
            return ""
        self._held += piece
        ends = [(begin + len(text), begin) for text in self._stop if (begin := self._held.find(text)) >= 0]
        if ends:
            self._stopped = True
            shown, self._held = self._held[: min(ends)[1]], ""
            return shown
        keep = self._beginning()
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def _beginning(self) -> int:
        """Length of the longest end of the held text that is the beginning of a stop string."""
        longest = max((len(text) for text in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(text.startswith(end) for text in self._stop):
                return length
        return 0
