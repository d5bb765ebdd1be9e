"""The rows of all chunks as one table on disk, in the order of the records, and where each record stands."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from instructgpt_fast.data.hygiene import first_pass
from instructgpt_fast.data.hygiene.grams import SIGNATURE
from instructgpt_fast.data.hygiene.plan import Piece
from instructgpt_fast.data.hygiene.spill import Rows, blocks
from instructgpt_fast.errors import DataError
from instructgpt_fast.files import atomic_write

# A record of the table: its row of the first pass, `file` and `line` in place of piece and line in the piece.
RECORD = np.dtype([
    ("file", "<u4"), ("line", "<u8"), ("offset", "<u8"), ("length", "<u4"), ("examples", "<u4"), ("grams", "<u4"),
    ("exact", "<u8", 2), ("prefix", "<u8", 2), ("user", "<u8"), ("group", "<u8"),
])
_SIGNATURE_BYTES = 4 * SIGNATURE


@dataclass(frozen=True)
class Placed:
    """A chunk behind the first pass: its first record's number, and the lines before each of its pieces."""

    number: int
    pieces: tuple[Piece, ...]
    first: int
    before: tuple[int, ...]
    found: first_pass.FirstResult


def placed(
    cut: Iterator[tuple[Piece, ...]], folder: Path, *, signatures: bool = False
) -> Iterator[Placed]:
    """Go through the chunks with what the first pass found in them, counting records and lines."""
    first = 0
    file, lines = -1, 0
    for number, pieces in enumerate(cut):
        found = first_pass.read(first_pass.chunk_path(folder, number, "first"), signatures=signatures)
        before = []
        for piece, count in zip(pieces, found.lines, strict=True):
            if piece.file != file:
                file, lines = piece.file, 0
            before.append(lines)
            lines += count
        yield Placed(number, pieces, first, tuple(before), found)
        first += len(found.rows)


@dataclass(frozen=True)
class Table:
    """The table of records in a folder."""

    folder: Path

    @property
    def path(self) -> Path:
        """The file of RECORD rows."""
        return self.folder / "records.rows"

    @property
    def signatures(self) -> Path:
        """The file of signatures, uint32 [N, SIGNATURE]; empty where near duplicates are not looked for."""
        return self.folder / "signatures.rows"

    def __len__(self) -> int:
        return self.path.stat().st_size // RECORD.itemsize

    def write(self, chunks: Iterator[Placed]) -> None:
        """Write both files from what the first pass found; the records last, so that they tell both are whole."""

        def content(file: IO[bytes]) -> None:
            def signatures(other: IO[bytes]) -> None:
                for chunk in chunks:
                    file.write(_records(chunk).tobytes())
                    other.write(chunk.found.signatures.tobytes())

            atomic_write(self.signatures, signatures, error=DataError)

        atomic_write(self.path, content, error=DataError)

    def blocks(self) -> Iterator[tuple[int, Rows]]:
        """Yield (number of the first record, rows) for blocks of the table in order."""
        start = 0
        for rows in blocks(self.path, RECORD):
            yield start, rows
            start += len(rows)


def _records(chunk: Placed) -> Rows:
    rows = chunk.found.rows
    records = np.empty(len(rows), dtype=RECORD)
    for name in RECORD.names or ():
        if name not in ("file", "line"):
            records[name] = rows[name]
    records["file"] = np.array([piece.file for piece in chunk.pieces], dtype=np.uint32)[rows["piece"]]
    records["line"] = rows["line"] + np.array(chunk.before, dtype=np.uint64)[rows["piece"]]
    return records


class Lookup:
    """Single rows of the table by number, read where they stand."""

    def __init__(self, table: Table) -> None:
        """Open the table's files."""
        self._records = os.open(table.path, os.O_RDONLY)
        self._signatures = os.open(table.signatures, os.O_RDONLY)

    def __enter__(self) -> Lookup:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._records)
        os.close(self._signatures)

    def record(self, index: int) -> Any:
        """The RECORD row of a record."""
        content = os.pread(self._records, RECORD.itemsize, index * RECORD.itemsize)
        return np.frombuffer(content, dtype=RECORD)[0]

    def signatures(self, indices: Sequence[int]) -> npt.NDArray[np.uint32]:
        """The signatures of some records: [n, SIGNATURE]."""
        content = b"".join(os.pread(self._signatures, _SIGNATURE_BYTES, i * _SIGNATURE_BYTES) for i in indices)
        return np.frombuffer(content, dtype="<u4").reshape(len(indices), SIGNATURE)
