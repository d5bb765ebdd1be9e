"""One spelling for many: fullwidth and other scripts' digits, wide punctuation, odd spaces, invisible characters."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache
from typing import NamedTuple

__all__ = ["JOINED", "UNSPACED", "Folded", "fold"]

# Inside of a character class: what makes a number part of a longer word where it stands next to it.
JOINED = "0-9A-Za-z_\u00c0-\u0dff"
# Inside of a character class: scripts without spaces between words, and Hangul, whose endings follow foreign words.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"

# Zero-width spaces and joiners, direction marks, the soft hyphen and the byte-order mark: a reader does not see them.
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]+")
_SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63"


class Folded(NamedTuple):
    """A folded text and, where characters were left out of it, their places."""

    text: str
    cuts: tuple[tuple[int, int], ...]  # (place in the folded text, characters left out before it in all)

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in the text as given that folded text[start:end] came from."""
        if not self.cuts:
            return start, end
        return start + self._left_out(start), end - 1 + self._left_out(end - 1) + 1

    def _left_out(self, place: int) -> int:
        low, high = 0, len(self.cuts)
        while low < high:
            middle = (low + high) // 2
            if self.cuts[middle][0] <= place:
                low = middle + 1
            else:
                high = middle
        return self.cuts[low - 1][1] if low else 0


def fold(text: str) -> Folded:
    """Return `text` with one character for each visible one: ASCII digits, ASCII for fullwidth forms, plain spaces.

    Decimal digits of every script become 0..9, U+FF01..FF5E become ASCII, spaces other than line ends become " ",
    hyphens and dashes become "-"; invisible characters are left out, and the places stay known.
    """
    if text.isascii():
        return Folded(text, ())
    cuts, pieces, done, gone = [], [], 0, 0
    for found in _INVISIBLE.finditer(text):
        pieces.append(text[done : found.start()])
        gone += found.end() - found.start()
        cuts.append((found.end() - gone, gone))
        done = found.end()
    pieces.append(text[done:])
    return Folded("".join(pieces).translate(_table()), tuple(cuts))


@lru_cache(maxsize=1)
def _table() -> dict[int, str]:
    table = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    table |= {code: str(unicodedata.decimal(chr(code))) for code in range(128, sys.maxunicode + 1)
              if chr(code).isdecimal()}
    table |= dict.fromkeys(map(ord, _SPACES), " ") | dict.fromkeys(map(ord, _HYPHENS), "-")
    return table | {0x3002: ".", 0xFF61: "."}
