"""Text from tokens that arrive one at a time, held back only while a character is incomplete."""

from __future__ import annotations

import codecs
import copy
from collections.abc import Callable
from typing import Self

__all__ = ["TextStream"]


class TextStream:
    """Turns tokens into text as they come; a character cut between two tokens waits for its rest.

    bytes_of: gives the bytes of a token id; special tokens are to give none, so that they are not shown.
    """

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the text that `token` completes, which may be empty."""
        return self._decoder.decode(self._bytes_of(token))

    def finish(self) -> str:
        """Return what an incomplete character at the end stands for: U+FFFD, or nothing when none is open."""
        return self._decoder.decode(b"", final=True)

    def fork(self) -> Self:
        """Return a second stream that has read the same tokens and may go on with others."""
        other = copy.copy(self)
        other._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        other._decoder.setstate(self._decoder.getstate())
        return other
