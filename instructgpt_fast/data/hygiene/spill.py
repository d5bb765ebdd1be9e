"""Rows of numbers on disk: cut by a key into parts that fit in memory, and removals sorted by record.

What is in memory at a time: one buffer, or one block of one part; never a whole table.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instructgpt_fast.errors import DataError
from instructgpt_fast.files import atomic_write, reporting_write_errors

PART_ROWS = 1 << 17
BLOCK_ROWS = 1 << 18  # so that a part is one block unless many rows have one key
BUFFER_BYTES = 1 << 24

# A record and the earlier one that it is a duplicate of; -1 where no record is to blame.
REMOVAL = np.dtype([("index", "<i8"), ("cause", "<i8")])

Rows = npt.NDArray[Any]


class Spill:
    """Rows in files by part, each part in the order in which its rows were added."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], rows: int) -> None:
        """Begin an empty table in a folder of its own, which may hold leavings. rows: how many are expected."""
        shutil.rmtree(folder, ignore_errors=True)
        with reporting_write_errors(folder, DataError):
            folder.mkdir(parents=True)
        self.folder, self.dtype = folder, dtype
        self.parts = max(1, -(-rows // PART_ROWS))
        self._waiting: dict[int, list[Rows]] = {}
        self._bytes = 0

    def add(self, rows: Rows, parts: npt.NDArray[np.uint64]) -> None:
        """Append rows; parts: the part of each."""
        if not len(rows):
            return
        order = np.argsort(parts, kind="stable")
        numbers, starts = np.unique(parts[order], return_index=True)
        for number, group in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            self._waiting.setdefault(number, []).append(rows[group])
        self._bytes += rows.nbytes
        if self._bytes >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits in memory."""
        for number, waiting in sorted(self._waiting.items()):
            path = self.path(number)
            with reporting_write_errors(path, DataError), path.open("ab") as file:
                for rows in waiting:
                    file.write(rows.tobytes())
        self._waiting, self._bytes = {}, 0

    def path(self, part: int) -> Path:
        """The file of a part, which is there if the part has rows."""
        return self.folder / f"{part:06d}.rows"

    def remove(self) -> None:
        """Delete the table."""
        shutil.rmtree(self.folder, ignore_errors=True)


def blocks(path: Path, dtype: np.dtype[Any]) -> Iterator[Rows]:
    """Yield a file of rows in order, `BLOCK_ROWS` at a time; none when there is no such file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while content := file.read(BLOCK_ROWS * dtype.itemsize):
            yield np.frombuffer(content, dtype=dtype)


def block_count(path: Path, dtype: np.dtype[Any]) -> int:
    """How many blocks `blocks` yields."""
    size = path.stat().st_size if path.exists() else 0
    return -(-size // (BLOCK_ROWS * dtype.itemsize))


def write_removals(target: Path, found: Iterable[Rows], records: int) -> None:
    """Write removals sorted by record, each record once with its earliest cause; the file appears when it is whole."""
    spill = Spill(target.with_suffix(".parts"), REMOVAL, records)
    for rows in found:
        spill.add(rows, (rows["index"] // PART_ROWS).astype(np.uint64))
    spill.flush()

    def content(file: Any) -> None:
        for part in range(spill.parts):
            for rows in _once(spill.path(part)):
                file.write(rows.tobytes())

    atomic_write(target, content, error=DataError)
    spill.remove()


def _once(path: Path) -> Iterator[Rows]:
    held = np.empty(0, dtype=REMOVAL)
    for rows in blocks(path, REMOVAL):
        held = np.concatenate([held, rows])
        held = held[np.lexsort((held["cause"], held["index"]))]
        first = np.ones(len(held), dtype=np.bool_)
        first[1:] = held["index"][1:] != held["index"][:-1]
        held = held[first]
    if len(held):
        yield held


class Removed:
    """Reads one or more sorted files of removals side by side with the records, in order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Begin before the first record; the earlier a file, the earlier its rule."""
        self._readers = [_Reader(path) for path in paths]

    def among(self, start: int, count: int) -> list[Rows]:
        """The removals of the records [start, start + count) by file; start never goes back."""
        return [reader.take(start, start + count) for reader in self._readers]

    def left(self, start: int, count: int) -> npt.NDArray[np.bool_]:
        """Which of the records [start, start + count) no file removes: [count]."""
        left = np.ones(count, dtype=np.bool_)
        for rows in self.among(start, count):
            left[rows["index"] - start] = False
        return left


class _Reader:
    def __init__(self, path: Path) -> None:
        self._blocks = blocks(path, REMOVAL)
        self._held = np.empty(0, dtype=REMOVAL)
        self._more = True

    def take(self, start: int, end: int) -> Rows:
        while self._more and (not len(self._held) or self._held["index"][-1] < end):
            block = next(self._blocks, None)
            if block is None:
                self._more = False
            else:
                self._held = np.concatenate([self._held, block])
        low, high = np.searchsorted(self._held["index"], [start, end])
        found, self._held = self._held[low:high], self._held[high:]
        return found
