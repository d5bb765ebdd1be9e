"""Items of a task file's jsonl: any JSON objects, each with its line for messages, and what names the whole file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

from instructgpt_fast.config import nearest
from instructgpt_fast.data import OnBadLine, read_jsonl
from instructgpt_fast.data.examples import ExampleKind
from instructgpt_fast.errors import DataError


@dataclass(frozen=True)
class Entry(ExampleKind):
    """A JSON object as it is."""

    values: Mapping[str, Any]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Take the whole object."""
        return cls(record)


@dataclass(frozen=True)
class Item:
    """One item: its fields, its file and its line from 1."""

    values: Mapping[str, Any]
    path: Path
    line: int

    def error(self, message: str) -> DataError:
        """An error that names this item's file and line."""
        return DataError(message, self.path, self.line)

    def get(self, name: str) -> Any:
        """The value of a field; "a.b" is field b of the object in field a. Raises DataError when there is none."""
        value: Any = self.values
        if name in self.values:
            return self.values[name]
        for part in name.split("."):
            if not isinstance(value, Mapping) or part not in value:
                got = ", ".join(map(repr, value)) if isinstance(value, Mapping) else type(value).__name__
                known = list(value) if isinstance(value, Mapping) else []
                raise self.error(f"task: an item must have the field {name!r}, got {got}{nearest(part, known)}")
            value = value[part]
        return value

    def text(self, name: str) -> str:
        """The text of a field; a number is written out. Raises DataError for anything else."""
        value = self.get(name)
        found = _text(value)
        if found is None:
            raise self.error(f"task: the field {name!r} must be text or a number, got {_kind(value)}")
        return found

    def texts(self, name: str) -> list[str]:
        """The texts of a field that holds one text or number, or a list of them. Raises DataError for anything else."""
        value = self.get(name)
        if not isinstance(value, list):
            return [self.text(name)]
        found = []
        for each in value:
            text = _text(each)
            if text is None:
                raise self.error(f"task: the list {name!r} must hold texts or numbers only, got {_kind(each)}")
            found.append(text)
        return found


@dataclass(frozen=True)
class Items(Sequence[Item]):
    """The items of one file. sha256: of the file's bytes. skipped: lines that cannot be read."""

    path: Path
    items: Sequence[Item]
    sha256: str
    skipped: int

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return self.items[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @property
    def identity(self) -> str:
        """What `Measure.data` is for a metric of all these items: equal for equal items alone."""
        return f"{self.sha256}:{len(self.items)}"


def read_items(path: str | Path, *limits: int | None, on_bad_line: OnBadLine = "error") -> Items:
    """Read a jsonl of items, the first so many as the lowest limit says. Raises DataError with file and line."""
    limit = min((each for each in limits if each is not None), default=None)
    found = read_jsonl(path, Entry, on_bad_line=on_bad_line)
    items = [Item(each.values, found.path, line) for each, line in zip(found, found.lines, strict=True)]
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Items(found.path, items[:limit], digest, len(found.skipped))


def identity_of(texts: Sequence[str]) -> str:
    """What `Measure.data` is for a metric of items that these texts name, wherever they were read from."""
    return f"{hashlib.sha256(json.dumps(texts).encode()).hexdigest()}:{len(texts)}"


def _text(value: Any) -> str | None:
    """A text as it is, a number written out; None for anything else."""
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return str(value) if isinstance(value, str | int | float) else None


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", dict: "an object", list: "a list", str: "text"}
    return names.get(type(value)) or (repr(value) if isinstance(value, float) else type(value).__name__)
