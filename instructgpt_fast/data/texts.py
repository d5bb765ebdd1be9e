"""Documents from .txt and .jsonl files and folders of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from instructgpt_fast.data.examples import Text
from instructgpt_fast.data.jsonl import OnBadLine, iterate_jsonl
from instructgpt_fast.errors import ConfigError, DataError

__all__ = ["Piece", "SkippedLines", "documents", "pieces", "text_files"]

SUFFIXES = (".txt", ".jsonl")
PIECE_CHARACTERS = 1 << 22  # of a .txt file in memory at a time


class SkippedLines(list[DataError]):
    """Collects why lines were left out when `documents` is asked to skip them."""


def text_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the file itself, or a folder's .txt and .jsonl files at any depth, by path.

    Raises DataError when there is none.
    """
    root = Path(path)
    if root.is_dir():
        found = sorted(file for file in root.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not found:
            raise DataError(f"texts: the folder must hold {' or '.join(SUFFIXES)} files, got none", root)
        return found
    if root.suffix not in SUFFIXES:
        raise DataError(f"texts: a file of text must end in {' or '.join(SUFFIXES)}, got {root.name!r}", root)
    if not root.exists():
        raise DataError("texts: there is no such file; check the path", root)
    if not root.is_file():
        raise DataError("texts: a regular file is needed, as it is read more than once, got a pipe, socket or device; "
                        "save what it gives", root)
    return [root]


class Piece(NamedTuple):
    """A part of a document; `ends` says whether it is the last part."""

    text: str
    ends: bool


def pieces(
    path: str | os.PathLike[str], *, on_bad_line: OnBadLine = "error", skipped: SkippedLines | None = None
) -> Iterator[Piece]:
    """Yield the documents of a file or folder in order, those of long .txt files in parts, cut behind a line's end.

    A .txt file is one document, every {"text"} of a .jsonl file is one. Empty .txt files give none.
    on_bad_line: "skip" leaves out jsonl lines that cannot be read and adds why to `skipped`; a .txt file that is not
    UTF-8 always stops.
    Raises DataError with file and line.
    """
    if on_bad_line not in ("error", "skip"):
        raise ConfigError(f"texts: on_bad_line must be 'error' or 'skip', got {on_bad_line!r}")
    for file in text_files(path):
        if file.suffix == ".txt":
            yield from _file_pieces(file)
            continue
        for _, found in iterate_jsonl(file, Text):
            if isinstance(found, Text):
                yield Piece(found.text, ends=True)
            elif on_bad_line == "error":
                raise found
            elif skipped is not None:
                skipped.append(found)


def documents(
    path: str | os.PathLike[str], *, on_bad_line: OnBadLine = "error", skipped: SkippedLines | None = None
) -> Iterator[str]:
    """Yield whole documents; otherwise as `pieces`."""
    parts: list[str] = []
    for piece in pieces(path, on_bad_line=on_bad_line, skipped=skipped):
        parts.append(piece.text)
        if piece.ends:
            yield "".join(parts)
            parts.clear()


def _file_pieces(path: Path) -> Iterator[Piece]:
    waiting = ""
    gathered: list[str] = []
    characters = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    gathered.append(line.decode("utf-8"))
                except UnicodeDecodeError as error:
                    rule = f"texts: the file must be UTF-8, byte {error.start} of the line is not"
                    raise DataError(f"{rule}; convert the file", path, number) from error
                characters += len(gathered[-1])
                if characters >= PIECE_CHARACTERS:
                    # One piece is held back, since only the end of the file tells which is the last.
                    if waiting:
                        yield Piece(waiting, ends=False)
                    waiting, characters = "".join(gathered), 0
                    gathered.clear()
    except OSError as error:
        raise DataError(f"texts: cannot read the file ({error.strerror}); check the path", path) from error
    rest = "".join(gathered)
    if waiting:
        yield Piece(waiting, ends=not rest)
    if rest:
        yield Piece(rest, ends=True)
