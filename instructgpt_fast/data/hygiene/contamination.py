"""Training records that contain evaluation text: they share a run of 13 words (Brown et al. 2020, appendix C).

An evaluation text of 8 to 12 words counts as one run of its own length, as the smallest n there is 8; a shorter one
cannot be told from common speech and is not looked for. Words are those of grams.py: case and punctuation do not count.
The evaluation texts are the small side: 12 bytes for each of their runs are held, on disk and mapped.
Not covered: translated, reworded or respelled evaluation text.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instructgpt_fast.data.hygiene.grams import Grams, Words, grams_of, words_of
from instructgpt_fast.data.jsonl import decode_line
from instructgpt_fast.errors import DataError
from instructgpt_fast.files import atomic_write

LONGEST, SHORTEST = 13, 8


@dataclass(frozen=True)
class Index:
    """The runs of words of the evaluation texts.

    grams: uint64 [G], sorted. texts: int64 [G], the number of the text that each is from. ends: one more than the last
    text of each file. short: texts of each file that are too short. lengths: the n of the runs.
    """

    grams: Grams
    texts: npt.NDArray[np.int64]
    files: list[str]
    ends: list[int]
    short: list[int]
    lengths: list[int]

    def shared(self, words: Words) -> npt.NDArray[np.int64]:
        """The evaluation texts that share a run with these words, by number, each once."""
        found = []
        for n in self.lengths:
            runs = grams_of(words, n)
            low = np.searchsorted(self.grams, runs)
            hits = np.flatnonzero(self.grams[np.minimum(low, len(self.grams) - 1)] == runs)
            for run in np.unique(runs[hits]):
                start, end = (int(np.searchsorted(self.grams, run, side=side)) for side in ("left", "right"))
                found.append(self.texts[start:end])
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)

    def file_of(self, text: int) -> int:
        """The file that a text is from."""
        return int(np.searchsorted(self.ends, text, side="right"))


def build(files: Sequence[Path], folder: Path) -> None:
    """Write the index of the evaluation files. Raises DataError for a line that cannot be read, and for no text."""
    grams: list[Grams] = []
    texts: list[npt.NDArray[np.int64]] = []
    ends, short, lengths = [], [], set()
    count = 0
    for path in files:
        few = 0
        for text in evaluation_texts(path):
            words = words_of(text)
            n = min(len(words), LONGEST)
            if n < SHORTEST:
                few += 1
            else:
                grams.append(np.unique(grams_of(words, n)))
                texts.append(np.full(len(grams[-1]), count, dtype=np.int64))
                lengths.add(n)
            count += 1
        ends.append(count)
        short.append(few)
    if not grams:
        raise DataError(
            f"contamination: the evaluation files must hold a text of {SHORTEST} words or more, got none", files[0]
        )
    keys, numbers = np.concatenate(grams), np.concatenate(texts)
    order = np.lexsort((numbers, keys))
    for name, values in (("grams", keys[order]), ("texts", numbers[order])):
        atomic_write(folder / f"contamination.{name}.npy", functools.partial(np.save, arr=values), error=DataError)
    about = {"files": [str(path) for path in files], "ends": ends, "short": short, "lengths": sorted(lengths)}
    atomic_write(folder / "contamination.json", json.dumps(about), error=DataError)


@lru_cache(maxsize=2)
def load(folder: Path) -> Index:
    """Open the index that `build` wrote; its arrays are mapped, not read."""
    about = json.loads((folder / "contamination.json").read_text(encoding="utf-8"))
    grams, texts = (
        np.load(folder / f"contamination.{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("grams", "texts")
    )
    return Index(grams, texts, about["files"], about["ends"], about["short"], about["lengths"])


def evaluation_texts(path: Path) -> Iterator[str]:
    """The texts of a file: of .jsonl every string of every line, of .txt what stands between empty lines."""
    try:
        with path.open("rb") as file:
            if path.suffix == ".txt":
                yield from _paragraphs(file, path)
                return
            for number, line in enumerate(file, start=1):
                content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if content.strip():
                    try:
                        yield from _strings(decode_line(content.rstrip()))
                    except DataError as error:
                        raise DataError(error.message, path, number) from error
    except OSError as error:
        raise DataError(f"contamination: cannot read the file ({error.strerror}); check the path", path) from error


def _paragraphs(lines: Iterator[bytes], path: Path) -> Iterator[str]:
    held: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"contamination: text must be UTF-8, byte {error.start} of the line is not", path,
                            number) from error
        if text.strip():
            held.append(text)
        elif held:
            yield "".join(held)
            held.clear()
    if held:
        yield "".join(held)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
