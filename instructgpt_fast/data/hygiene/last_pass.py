"""The last pass over a chunk: splits, the rules of the training split, and the lines that are written.

A chunk's result is one file, as in the first pass: a line of JSON with the counts, then the lines for each output.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from instructgpt_fast.data.hygiene import contamination, first_pass, grams
from instructgpt_fast.data.hygiene.few_shot import expand
from instructgpt_fast.data.hygiene.options import Kind, PrepareConfig
from instructgpt_fast.data.hygiene.pii import find_pii, mask_pii
from instructgpt_fast.data.hygiene.plan import Contents
from instructgpt_fast.data.hygiene.records import map_texts, texts_of
from instructgpt_fast.errors import DataError
from instructgpt_fast.files import atomic_write

SPLITS = ("train", "valid", "test")
OUTPUTS = (*SPLITS, "removed")


@dataclass(frozen=True)
class LastTask:
    """A chunk behind the rules between records.

    before: lines of the file before each piece. removed: (place among the chunk's rows, rule, detail).
    """

    number: int
    files: tuple[Path, ...]
    before: tuple[int, ...]
    removed: tuple[tuple[int, str, Any], ...]
    kind: Kind
    options: PrepareConfig
    folder: Path


class _Result:
    """Lines by output, and the counts of the report."""

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = {name: [] for name in OUTPUTS}
        self.records: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self.private: Counter[str] = Counter()
        self.masked = 0
        self.leaked: Counter[int] = Counter()  # training records by evaluation file
        self.found: set[int] = set()  # evaluation texts that a training record shares a run of words with
        self._removed: list[tuple[int, int, bytes]] = []

    def remove(self, piece: int, line: int, place: str, rule: str, detail: Any) -> None:
        self.rules[rule] += 1
        content = json.dumps({"place": place, "rule": rule, "detail": detail}, ensure_ascii=False).encode()
        self._removed.append((piece, line, content))

    def save(self, path: Path) -> None:
        self.lines["removed"] = [content for _, _, content in sorted(self._removed)]
        parts = {name: b"".join(line + b"\n" for line in lines) for name, lines in self.lines.items()}
        head = {
            "sizes": [len(parts[name]) for name in OUTPUTS],
            "records": self.records, "examples": {name: len(self.lines[name]) for name in SPLITS},
            "rules": self.rules, "private": self.private, "masked": self.masked,
            "leaked": self.leaked, "found": sorted(self.found),
        }

        def content(file: IO[bytes]) -> None:
            file.write(json.dumps(head).encode() + b"\n")
            for name in OUTPUTS:
                file.write(parts[name])

        atomic_write(path, content, error=DataError)


def run(task: LastTask) -> int:
    """Make a chunk's last file unless it is there; returns its number. Raises DataError."""
    path = first_pass.chunk_path(task.folder, task.number, "last")
    if path.exists():
        return task.number
    found = first_pass.read(first_pass.chunk_path(task.folder, task.number, "first"))
    result = _Result()
    for piece, line, rule, detail in found.removed:
        result.remove(piece, line, _place(task, piece, line), rule, detail)
    rows = found.rows
    left = np.ones(len(rows), dtype=np.bool_)
    for number, rule, detail in task.removed:
        piece, line = int(rows["piece"][number]), int(rows["line"][number])
        left[number] = False
        result.remove(piece, line, _place(task, piece, line), rule, detail)
    draws = grams.chance(rows["group"], task.options.seed)
    with Contents() as contents:
        for number in np.flatnonzero(left).tolist():
            _write(task, rows[number], contents, split_of(float(draws[number]), task.options), result)
    result.save(path)
    return task.number


def split_of(draw: float, options: PrepareConfig) -> str:
    """The split of a user whose number in [0, 1) is `draw`."""
    if draw < options.test_fraction:
        return "test"
    return "valid" if draw < options.test_fraction + options.valid_fraction else "train"


def _write(task: LastTask, row: Any, contents: Contents, split: str, result: _Result) -> None:
    """Put a record where it belongs; in the training split after its last two rules."""
    piece, line = int(row["piece"]), int(row["line"])
    path = task.files[piece]
    content = contents.read(path, row)
    try:
        value = first_pass.value_of(content, path, task.options, task.kind)
    except DataError as error:
        changed = f"{error.message}; the file must not change while it is read"
        raise DataError(changed, path, task.before[piece] + line) from error
    # What was not changed goes on byte by byte, numbers and spaces as they were written.
    as_given = path.suffix != ".txt"
    if split == "train":
        reason = _leak(task, value, result) or _private(task, value, result)
        if reason is not None:
            result.remove(piece, line, _place(task, piece, line), *reason)
            return
        if task.options.pii == "mask":
            masked = _masked(task, value, result)
            as_given = as_given and masked is value
            value = masked
    result.records[split] += 1
    if task.kind == "few_shot":
        result.lines[split] += expand(value, task.options.few_shot_format)
    else:
        line_of_json = content.strip() if as_given else json.dumps(value, ensure_ascii=False).encode()
        result.lines[split].append(line_of_json)


def _leak(task: LastTask, value: Any, result: _Result) -> tuple[str, Any] | None:
    if not task.options.contamination:
        return None
    index = contamination.load(task.folder)
    shared = index.shared(grams.words_of("\n".join(texts_of(value, task.kind))))
    if not len(shared):
        return None
    files = sorted({index.file_of(text) for text in shared.tolist()})
    result.leaked.update(files)
    result.found.update(shared.tolist())
    return "contamination", [index.files[number] for number in files]


def _private(task: LastTask, value: Any, result: _Result) -> tuple[str, Any] | None:
    """The rule and the kinds of private data that remove a record, never the private text itself."""
    if task.options.pii != "remove":
        return None
    texts = texts_of(value, task.kind)
    kinds = Counter(finding.kind for text in texts for finding in find_pii(text, task.options.pii_regions))
    result.private.update(kinds)
    return ("pii", dict(sorted(kinds.items()))) if kinds else None


def _masked(task: LastTask, value: Any, result: _Result) -> Any:
    """The record with private data masked; the same object where there is none."""
    before = result.private.total()

    def change(text: str) -> str:
        findings = find_pii(text, task.options.pii_regions)
        result.private.update(finding.kind for finding in findings)
        return mask_pii(text, findings) if findings else text

    changed = map_texts(value, task.kind, change)
    if result.private.total() == before:
        return value
    result.masked += 1
    return changed


def _place(task: LastTask, piece: int, line: int) -> str:
    return f"{task.files[piece]}:{task.before[piece] + line}"


def read(folder: Path, number: int, place: int) -> tuple[dict[str, Any], bytes]:
    """The counts of a chunk, and its lines for output `place` of OUTPUTS."""
    with first_pass.chunk_path(folder, number, "last").open("rb") as file:
        head: dict[str, Any] = json.loads(file.readline())
        file.seek(sum(head["sizes"][:place]), 1)
        return head, file.read(head["sizes"][place])
