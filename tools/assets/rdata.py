"""Reads character vectors out of an R lazy-load database (.rdx index and .rdb data).

Not covered: any R value other than lists, vectors of strings, numbers and logicals, and their attributes.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

_HEADER_BYTES = 2  # "X\n": the XDR form of R's serialization
_HAS_ATTRIBUTES, _HAS_TAG = 0x200, 0x400
_MISSING_LENGTH = -1


class RReader:
    """Decodes one value in R's XDR serialization (R Internals, section 1.8), big-endian throughout."""

    def __init__(self, data: bytes) -> None:
        if data[:_HEADER_BYTES] != b"X\n":
            raise ValueError("RReader: a serialized R value begins with 'X\\n', got " + repr(data[:2]))
        self._data, self._at = data, _HEADER_BYTES
        self._symbols: list[str] = []
        version, _, _ = (self._integer() for _ in range(3))
        if version == 3:  # names its text encoding
            self._bytes(self._integer())

    def _bytes(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise ValueError(f"RReader: the value ends {count - len(piece)} bytes early")
        self._at += count
        return piece

    def _integer(self) -> int:
        return int(struct.unpack(">i", self._bytes(4))[0])

    def value(self) -> Any:
        """Decode the next value: list, str, int, float, None, or a dict for a pairlist."""
        flags = self._integer()
        kind = flags & 0xFF
        if kind == 254:  # NULL
            return None
        if kind == 255:  # a symbol met before
            return self._symbols[(flags >> 8) - 1]
        if kind == 1:  # symbol
            self._symbols.append(self.value())
            return self._symbols[-1]
        if kind == 2:
            return self._pairlist(flags)
        if kind == 9:  # one string
            length = self._integer()
            return None if length == _MISSING_LENGTH else self._bytes(length).decode("utf-8")
        return self._vector(kind, flags)

    def _vector(self, kind: int, flags: int) -> list[Any]:
        length = self._integer()
        if kind in (10, 13):  # logical, integer
            items: list[Any] = list(struct.unpack(f">{length}i", self._bytes(4 * length)))
        elif kind == 14:  # double
            items = list(struct.unpack(f">{length}d", self._bytes(8 * length)))
        elif kind in (16, 19):  # strings, list
            items = [self.value() for _ in range(length)]
        else:
            raise ValueError(f"RReader: R type {kind} is not one that a table of text needs")
        if flags & _HAS_ATTRIBUTES:
            attributes = self.value()
            if kind == 19 and attributes and "names" in attributes:
                return [dict(zip(attributes["names"], items, strict=True))]
        return items

    def _pairlist(self, flags: int) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        while True:
            if flags & _HAS_ATTRIBUTES:
                self.value()
            tag = self.value() if flags & _HAS_TAG else str(len(pairs))
            pairs[tag] = self.value()
            flags = self._integer()
            if flags & 0xFF == 254:
                return pairs
            if flags & 0xFF != 2:
                raise ValueError(f"RReader: a pairlist ends with NULL, got R type {flags & 0xFF}")


def read_lazy_load(stem: Path) -> dict[str, list[Any]]:
    """Return each variable of `stem`.rdx and `stem`.rdb by name."""
    index = RReader(gzip.decompress(stem.with_suffix(".rdx").read_bytes())).value()[0]
    data = stem.with_suffix(".rdb").read_bytes()
    variables = {}
    for name, (offset, length) in index["variables"][0].items():
        # Four bytes of length before compression, then a zlib stream.
        packed = data[offset : offset + length]
        plain = zlib.decompress(packed[4:])
        if len(plain) != struct.unpack(">I", packed[:4])[0]:
            raise ValueError(f"read_lazy_load: {stem}.rdb: {name} does not have its recorded length")
        variables[name] = RReader(plain).value()
    return variables
