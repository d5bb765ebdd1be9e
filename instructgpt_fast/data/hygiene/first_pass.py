"""The first pass over a chunk: which records can be read and stand the rules for one text, and their keys.

A chunk's result is one file, whole or not there; which process makes it, and when, changes none of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from instructgpt_fast.data.hygiene import grams
from instructgpt_fast.data.hygiene.language import language_of
from instructgpt_fast.data.hygiene.length import DEFAULT, GOPHER, GOPHER_WORDS, length_reason, quality_reason
from instructgpt_fast.data.hygiene.options import Kind, PrepareConfig
from instructgpt_fast.data.hygiene.plan import Line, Piece, read_piece
from instructgpt_fast.data.hygiene.records import Record, normalized, read_record
from instructgpt_fast.data.jsonl import decode_line
from instructgpt_fast.errors import DataError
from instructgpt_fast.files import atomic_write

# A record that is left after this pass. line: from 1, in its piece. exact, prefix: 128-bit keys in two halves, 0 for no
# prefix. user: 0 for none. group: what the split is drawn by. grams: size of the set that near duplicates share.
ROW = np.dtype([
    ("piece", "<u4"), ("line", "<u8"), ("offset", "<u8"), ("length", "<u4"), ("examples", "<u4"), ("grams", "<u4"),
    ("exact", "<u8", 2), ("prefix", "<u8", 2), ("user", "<u8"), ("group", "<u8"),
])


@dataclass(frozen=True)
class FirstTask:
    """A chunk, and what is done to it."""

    number: int
    pieces: tuple[Piece, ...]
    files: tuple[Path, ...]  # of the pieces, in their order
    kind: Kind
    options: PrepareConfig
    folder: Path


@dataclass(frozen=True)
class FirstResult:
    """What the first pass found in a chunk, as its file has it.

    rows: [N] of ROW. signatures: uint32 [N, SIGNATURE], zeros where a text has no word, [0, SIGNATURE] where near
    duplicates are not looked for. lines: of each piece. removed: (piece, line, rule, detail) in order.
    """

    rows: npt.NDArray[Any]
    signatures: npt.NDArray[np.uint32]
    lines: list[int]
    removed: list[tuple[int, int, str, Any]]
    bad: tuple[int, int, str] | None  # piece, line and reason of the first line that cannot be read


def chunk_path(folder: Path, number: int, suffix: str) -> Path:
    """The file of a chunk's result."""
    return folder / f"{number:07d}.{suffix}"


def run(task: FirstTask) -> int:
    """Make a chunk's file unless it is there; returns its number. Raises DataError for a line that cannot be read."""
    path = chunk_path(task.folder, task.number, "first")
    if not path.exists():
        result = examine(task)
        if result.bad is not None and task.options.on_bad_line == "error":
            piece, line, reason = result.bad
            before = _lines_before(task.files[piece], task.pieces[piece].start)
            raise DataError(reason, task.files[piece], before + line)
        save(path, result)
    return task.number


def examine(task: FirstTask) -> FirstResult:
    """Read the records of a chunk and find their keys."""
    rows: list[tuple[Any, ...]] = []
    signatures: list[npt.NDArray[np.uint32]] = []
    removed: list[tuple[int, int, str, Any]] = []
    lines: list[int] = []
    bad = None
    with_signatures = task.options.near_duplicates is not None
    for place, (piece, path) in enumerate(zip(task.pieces, task.files, strict=True)):
        for line in read_piece(path, piece, task.options.text_unit):
            if not line.length and line.error is None:
                lines.append(line.line)
                continue
            try:
                record = _record(line, path, task)
            except DataError as error:
                bad = bad or (place, line.line, error.message)
                removed.append((place, line.line, "unreadable", _unquoted(error.message)))
                if task.options.on_bad_line == "error":
                    break
                continue
            reason = text_reason(record, task.options)
            if reason is not None:
                removed.append((place, line.line, *reason))
                continue
            row, shingles = keys_of(record, task.options)
            rows.append((place, line.line, line.offset, line.length, record.examples, len(shingles), *row))
            if with_signatures:
                empty = np.zeros(grams.SIGNATURE, dtype=np.uint32)
                signatures.append(grams.signature(shingles) if len(shingles) else empty)
    table = np.array(rows, dtype=ROW)
    values = np.array(signatures, dtype=np.uint32).reshape(len(signatures), grams.SIGNATURE)
    return FirstResult(table, values, lines, removed, bad)


def _unquoted(message: str) -> str:
    """What is wrong with a line, without what the message quotes of it (single signs are no text)."""
    rule, got, quoted = message.partition(", got ")
    return rule if re.search(r"""'[^']{2,}'|\"""", quoted) else rule + got + quoted


def _record(line: Line, path: Path, task: FirstTask) -> Record:
    if line.error is not None:
        raise DataError(line.error)
    value = value_of(line.content, path, task.options, task.kind)
    return read_record(value, task.kind, task.options.user_field)


def value_of(content: bytes, path: Path, options: PrepareConfig, kind: Kind) -> Any:
    """The JSON value of a record's bytes; text becomes {"text"} or {"prompt"}. Raises DataError."""
    if path.suffix != ".txt":
        return decode_line(content.rstrip())
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"prepare: text must be UTF-8, its byte {error.start} is not") from error
    return {"text" if kind == "text" else "prompt": text if options.text_unit == "file" else text.rstrip("\r\n")}


def text_reason(record: Record, options: PrepareConfig) -> tuple[str, Any] | None:
    """Rule and detail of the first rule that the text of a record breaks."""
    text = record.whole
    gopher = options.quality == "gopher"
    few, many = GOPHER_WORDS if gopher else (0, None)
    reason = length_reason(
        text, min_characters=options.min_characters, max_characters=options.max_characters,
        min_words=few, max_words=many,
    )
    if reason is not None:
        return "length", reason
    if options.quality != "off":
        reason = quality_reason(text, GOPHER if gopher else DEFAULT)
        if reason is not None:
            return "quality", reason
    if options.languages:
        language, probability = language_of(text)
        if language not in options.languages:
            return "language", f"{language} with probability {probability:.2f}"
    return None


def keys_of(record: Record, options: PrepareConfig) -> tuple[tuple[Any, ...], grams.Grams]:
    """The keys of a record in the order of ROW from `exact` on, and the n-grams that it is compared by."""
    prompt = normalized(record.prompt)
    compared = prompt if options.compare_by == "prompt" else normalized(record.whole)
    length = options.prefix_characters
    prefix = (0, 0) if length is None or len(compared) < length else _halves(compared[:length])
    group = _halves(prompt)[0]
    user = 0
    if record.user is not None:
        group = user = _halves(record.user)[0] or 1
    found = np.empty(0, dtype=np.uint64)
    if options.near_duplicates is not None:
        found = grams.shingles(grams.words_of(compared), options.near_duplicate_words)
    return (_halves(compared), prefix, user, group), found


def _halves(text: str) -> tuple[int, int]:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _lines_before(path: Path, offset: int) -> int:
    count = 0
    with path.open("rb") as file:
        while offset > 0 and (part := file.read(min(offset, 1 << 20))):
            count += part.count(b"\n")
            offset -= len(part)
    return count


def save(path: Path, result: FirstResult) -> None:
    """Write a chunk's result: one line of JSON, then the rows, then the signatures."""
    head = {"rows": len(result.rows), "signatures": len(result.signatures), "lines": result.lines,
            "removed": result.removed}

    def content(file: IO[bytes]) -> None:
        file.write(json.dumps(head, ensure_ascii=False).encode() + b"\n")
        file.write(result.rows.tobytes())
        file.write(result.signatures.astype("<u4").tobytes())

    atomic_write(path, content, error=DataError)


def read(path: Path, *, signatures: bool = False) -> FirstResult:
    """Read what `save` wrote; the signatures only when they are asked for."""
    with path.open("rb") as file:
        head = json.loads(file.readline())
        rows = np.frombuffer(file.read(head["rows"] * ROW.itemsize), dtype=ROW)
        count = head["signatures"] if signatures else 0
        values = np.frombuffer(file.read(count * 4 * grams.SIGNATURE), dtype="<u4")
    removed = [(piece, line, rule, detail) for piece, line, rule, detail in head["removed"]]
    return FirstResult(rows, values.reshape(count, grams.SIGNATURE), head["lines"], removed, None)
