"""Reads examples from JSON lines, naming file and line of whatever cannot be read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, overload

from instructgpt_fast.data.examples import Example, parse
from instructgpt_fast.errors import ConfigError, DataError

__all__ = ["Examples", "OnBadLine", "decode_line", "iterate_jsonl", "read_jsonl"]

OnBadLine = Literal["error", "skip"]
"""What a line that cannot be read does: stop with its place, or be left out and counted."""


@dataclass(frozen=True)
class Examples(Sequence[Example], Generic[Example]):
    """Examples in the order of their file, each with its place, and what was left out on the way.

    lines: the line of each example, from 1. skipped: why each line that was left out cannot be read.
    """

    path: Path
    items: tuple[Example, ...]
    lines: tuple[int, ...]
    skipped: tuple[DataError, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        return self.items[index]

    def error(self, index: int, message: str) -> DataError:
        """Return an error about example `index` that names its file and line."""
        return DataError(message, self.path, self.lines[index])


def read_jsonl(
    path: str | os.PathLike[str], kind: type[Example], *, on_bad_line: OnBadLine = "error"
) -> Examples[Example]:
    """Read a file of one JSON object a line as examples of `kind`; lines of white space are passed over.

    kind: Text, Prompt, Demonstration or Comparison.
    on_bad_line: "skip" leaves out and keeps count of lines that are not UTF-8, not JSON or not of that kind.
    Raises DataError with file and line, and for a file that is missing or holds no example.
    """
    if on_bad_line not in ("error", "skip"):
        raise ConfigError(f"read_jsonl: on_bad_line must be 'error' or 'skip', got {on_bad_line!r}")
    items: list[Example] = []
    lines: list[int] = []
    skipped: list[DataError] = []
    for number, found in iterate_jsonl(path, kind):
        if isinstance(found, DataError):
            if on_bad_line == "error":
                raise found
            skipped.append(found)
        else:
            items.append(found)
            lines.append(number)
    if not items:
        reason = f"{len(skipped)} lines that cannot be read, the first because: {skipped[0]}" if skipped else "none"
        raise DataError(f"read_jsonl: the file must hold at least one {kind.__name__.lower()}, got {reason}", path)
    return Examples(Path(path), tuple(items), tuple(lines), tuple(skipped))


def iterate_jsonl(
    path: str | os.PathLike[str], kind: type[Example]
) -> Iterator[tuple[int, Example | DataError]]:
    """Yield (line from 1, example or why it cannot be read) for each line that is not blank, one at a time.

    Raises DataError for a file that cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line  # a byte-order mark is no text
                if data.strip():
                    try:
                        yield number, parse(kind, decode_line(data.rstrip()))
                    except DataError as error:
                        yield number, DataError(error.message, path, number)
    except OSError as error:
        raise DataError(f"read_jsonl: cannot read the file ({error.strerror}); check the path", path) from error


def decode_line(line: bytes) -> Any:
    """Return the JSON value of a line; raises DataError that says why it is none, or not UTF-8."""
    rule = "read_jsonl: a line must be one JSON object in UTF-8"
    try:
        value = _DECODER.decode(line.decode("utf-8"))
        if b"\\u" in line:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{rule}, its byte {error.start} is not UTF-8") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{rule}, got an escape for half a character (a lone surrogate)") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{rule}, got {error.msg} at column {error.colno}") from error
    except ValueError as error:  # what is left: json reads no integer that int() refuses
        raise DataError(f"{rule}, got a whole number of more digits than Python reads") from error
    except RecursionError as error:
        raise DataError(f"{rule}, got one nested too deeply") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose fields have one value each: of two, one would be read and the other kept unseen."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(f"read_jsonl: an object must name a field once, got {double!r} twice; leave one out")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
