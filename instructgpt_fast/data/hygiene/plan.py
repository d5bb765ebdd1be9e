"""How the input is cut: files into chunks of whole records, the same on every run, without being held in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from instructgpt_fast.data.texts import text_files
from instructgpt_fast.errors import DataError

TextUnit = Literal["file", "paragraph", "line"]

CHUNK_BYTES = 1 << 19  # of input: seconds of work, so that little is lost when a run is stopped
CHUNK_PIECES = 1 << 10
RECORD_BYTES = 1 << 26  # a longer record cannot be read: it would take what memory there is
_SAMPLED_BYTES = 1 << 16
CHANGED = "prepare: the file must not change while it is read"


@dataclass(frozen=True)
class Piece:
    """The bytes [start, end) of file number `file`, which begin and end between records."""

    file: int
    start: int
    end: int


@dataclass(frozen=True)
class Line:
    """One record as it stands in a file. line: counted from 1 at the piece's start. error: why it cannot be read."""

    line: int
    offset: int
    length: int
    content: bytes
    error: str | None = None


def input_files(data: Sequence[str]) -> list[Path]:
    """The files to read, in the order in which they were named; raises DataError for a missing or a double one."""
    found = [file for path in data for file in text_files(path)]
    seen: set[Path] = set()
    for file in found:
        if file.resolve() in seen:
            raise DataError("prepare: a file must be named once; leave it out, or its folder", file)
        if str(file) != os.fsencode(file).decode("utf-8", "replace"):  # removed.jsonl names places, in UTF-8
            raise DataError(f"prepare: a file's name must be UTF-8, got {str(file)!a}; rename it")
        seen.add(file.resolve())
    return found


def fingerprint(files: Sequence[Path]) -> list[list[Any]]:
    """Path, size and a hash of beginning and end of each file: notices other files without reading all of them."""
    found: list[list[Any]] = []
    for path in files:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                mark = hashlib.sha256(file.read(_SAMPLED_BYTES))
                file.seek(max(0, size - _SAMPLED_BYTES))
                mark.update(file.read(_SAMPLED_BYTES))
        except OSError as error:
            raise DataError(f"prepare: cannot read the file ({error.strerror}); check the path", path) from error
        found.append([str(path), size, mark.hexdigest()])
    return found


def fingerprint_text(value: object) -> str:
    """A short name for options and files that are the same."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def stamps(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Size and time of the last change (nanoseconds) of each file."""
    found = [path.stat() for path in files]
    return [(about.st_size, about.st_mtime_ns) for about in found]


def chunks(files: Sequence[Path], sizes: Sequence[int], unit: TextUnit) -> Iterator[tuple[Piece, ...]]:
    """Cut the files, of so many bytes each, into chunks of about `CHUNK_BYTES`, one after the other."""
    waiting: list[Piece] = []
    size = 0
    for number, (path, length) in enumerate(zip(files, sizes, strict=True)):
        for start, end in _ranges(path, length, unit):
            waiting.append(Piece(number, start, end))
            size += end - start
            if size >= CHUNK_BYTES or len(waiting) >= CHUNK_PIECES:
                yield tuple(waiting)
                waiting, size = [], 0
    if waiting:
        yield tuple(waiting)


def _ranges(path: Path, size: int, unit: TextUnit) -> Iterator[tuple[int, int]]:
    whole = path.suffix == ".txt" and unit == "file"
    if whole or size <= CHUNK_BYTES:
        if size:
            yield 0, size
        return
    paragraphs = path.suffix == ".txt" and unit == "paragraph"
    with path.open("rb") as file:
        start = 0
        while start < size:
            file.seek(min(size, start + CHUNK_BYTES))
            _pass_line(file)
            while paragraphs and _pass_line(file):
                pass
            end = min(file.tell(), size)
            yield start, end
            start = end


def _pass_line(file: IO[bytes]) -> bool:
    """Go behind the next line's end, however far it is; whether the line held anything but white space."""
    filled = False
    while part := file.readline(1 << 16):
        filled = filled or bool(part.strip())
        if part.endswith(b"\n"):
            break
    return filled


def read_piece(path: Path, piece: Piece, unit: TextUnit) -> Iterator[Line]:
    """Yield the records of a piece in order, those of white space alone left out; the last is an empty one that
    tells how many lines the piece has.
    """
    grouped = path.suffix == ".txt" and unit != "line"
    with path.open("rb") as file:
        if path.suffix == ".txt" and unit == "file":
            yield _checked(1, 0, file.read(RECORD_BYTES + 1) if piece.end <= RECORD_BYTES else b"", piece.end)
            yield Line(1, piece.end, 0, b"")
            return
        file.seek(piece.start)
        number, offset = 0, piece.start
        held: list[bytes] = []
        first = size = 0
        while offset < piece.end:
            content, length = _bounded_line(file)
            if not length:
                raise DataError(f"{CHANGED}, got a shorter one; run again", path)
            number += 1
            blank = length <= RECORD_BYTES and not content.strip()
            if grouped:
                if blank and held:
                    yield _checked(first, offset - size, b"".join(held), size)
                    held, size = [], 0
                elif not blank:
                    first = first if held else number
                    size += length
                    held.append(content if size <= RECORD_BYTES else b"\n")
            elif not blank:
                yield _checked(number, offset, content, length)
            offset += length
        if held:
            yield _checked(first, offset - size, b"".join(held), size)
    yield Line(number, offset, 0, b"")


def _bounded_line(file: IO[bytes]) -> tuple[bytes, int]:
    """The next line and its length; of a line that is too long only the length."""
    content = file.readline(RECORD_BYTES + 1)
    length = len(content)
    if length <= RECORD_BYTES:
        return content, length
    while content and not content.endswith(b"\n"):
        content = file.readline(1 << 20)
        length += len(content)
    return b"", length


def _checked(line: int, offset: int, content: bytes, length: int) -> Line:
    if length > RECORD_BYTES:
        rule = f"prepare: a record must have at most {RECORD_BYTES >> 20} MiB, got {length:,} bytes; cut it"
        return Line(line, offset, 0, b"", rule + " (text_unit='paragraph' or 'line' cuts a .txt file)")
    if offset == 0:
        content = content.removeprefix(b"\xef\xbb\xbf")  # a byte-order mark is no text
    return Line(line, offset, length, content)


class Contents:
    """Reads records again where the first pass found them; the last file stays open."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._path: Path | None = None
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, path: Path, row: Any) -> bytes:
        """The bytes at `offset` and `length` of a row. Raises DataError when the file does not have them any more."""
        if path != self._path:
            if self._file is not None:
                self._file.close()
            self._path, self._file = path, path.open("rb")
        assert self._file is not None
        offset, length = int(row["offset"]), int(row["length"])
        self._file.seek(offset)
        content = self._file.read(length)
        if len(content) != length:
            raise DataError(f"{CHANGED}, got a shorter one; run again", path)
        return content.removeprefix(b"\xef\xbb\xbf") if offset == 0 else content
