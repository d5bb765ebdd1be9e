"""Which kind the records of some files are, when nobody says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instructgpt_fast.data.hygiene.options import Kind, PrepareConfig
from instructgpt_fast.data.hygiene.plan import Piece, read_piece
from instructgpt_fast.data.hygiene.records import detect_kind
from instructgpt_fast.data.jsonl import decode_line
from instructgpt_fast.errors import DataError


def kind_of_files(files: Sequence[Path], options: PrepareConfig) -> Kind:
    """The kind that was asked for, or what the first record that is like any kind looks like.

    Raises DataError when there is no record at all, none of a known kind, and for a .txt file among records that are
    neither text nor prompts.
    """
    kind = options.kind if options.kind != "auto" else _detected(files, options)
    if kind not in ("text", "prompt"):
        for path in files:
            if path.suffix == ".txt":
                raise DataError(f"prepare: a .txt file holds text or prompts, got kind={kind!r}; leave it out", path)
    return kind


def _detected(files: Sequence[Path], options: PrepareConfig) -> Kind:
    wrong: DataError | None = None
    for path in files:
        size = path.stat().st_size
        if path.suffix == ".txt":
            if size:
                return "text"
            continue
        for line in read_piece(path, Piece(0, 0, size), options.text_unit):
            if not line.length and line.error is None:
                continue
            try:
                value = decode_line(line.content.rstrip()) if line.error is None else None
                kind = detect_kind(value)
            except DataError as error:
                value = kind = None
                wrong = wrong or DataError(error.message, path, line.line)
            if kind is not None:
                return kind
            wrong = wrong or DataError(line.error or _unknown(value), path, line.line)
            if options.on_bad_line == "error":
                break
    raise wrong or DataError("prepare: the data must hold at least one record, got empty files", files[0])


def _unknown(value: Any) -> str:
    names = list(value) if isinstance(value, dict) else []
    got = ", ".join(map(repr, names[:6])) + (", ..." if len(names) > 6 else "") if names else "none"
    return (
        "prepare: a record must be an object with the fields of a text, prompt, demonstration, comparison or few-shot "
        f"instruction, got the fields {got}; see docs/data.md"
    )
