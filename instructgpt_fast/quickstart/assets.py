"""The texts, human ratings and facts that travel with the package; origin and licence of each: assets/SOURCES.md."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt_fast.errors import ConfigError, DataError

__all__ = [
    "CORPORA",
    "Definition",
    "Document",
    "QuizFact",
    "corpus",
    "definitions",
    "quiz_facts",
    "split",
    "vader_ratings",
]

DIRECTORY = Path(__file__).resolve().parent / "assets"

CORPORA = {
    "austen": "austen.txt.xz",
    "moby_dick": "moby_dick.txt.xz",
    "state_of_the_union": "state_of_the_union.txt.xz",
    "bible": "bible.txt.xz",
}
"""Names that `corpus` knows, with the file of each."""


class Document(NamedTuple):
    """A chapter-sized piece of prose; `text` is the title's line, then one line for each paragraph."""

    title: str
    text: str


class Definition(NamedTuple):
    """WordNet's first sense of a common word; `part` is noun, verb or adjective; every example shows the word."""

    word: str
    part: str
    definition: str
    examples: tuple[str, ...]


class QuizFact(NamedTuple):
    """A question with every accepted answer, the preferred one first; `subject` groups questions of a kind."""

    question: str
    answers: tuple[str, ...]
    subject: str


def corpus(names: str | Sequence[str] = ("austen",)) -> list[Document]:
    """Return the documents of the named sources, in the order of the names and of the books.

    names: one or more keys of `CORPORA`.
    Raises ConfigError for an unknown name, DataError for a missing or damaged file.
    """
    documents = []
    for name in [names] if isinstance(names, str) else names:
        if name not in CORPORA:
            raise ConfigError(f"corpus: a name must be one of {', '.join(CORPORA)}, got {name!r}")
        for block in _read(CORPORA[name]).rstrip("\n").split("\n\n"):
            documents.append(Document(block.partition("\n")[0], block))
    return documents


def split(
    documents: Iterable[Document], validation_fraction: float = 0.05
) -> tuple[list[Document], list[Document]]:
    """Part documents into (training, validation), each in the given order, the same on every machine.

    validation_fraction: share of the characters, in (0, 1), that goes to validation; whole documents are taken in
    the order of the SHA-256 of their titles until that share is reached, so neither place nor source decides.
    Raises ConfigError when the fraction leaves one side empty.
    """
    pool = list(documents)
    wanted = validation_fraction * sum(len(document.text) for document in pool)
    chosen: set[int] = set()
    taken = 0
    for index in sorted(range(len(pool)), key=lambda i: hashlib.sha256(pool[i].title.encode("utf-8")).digest()):
        if taken >= wanted:
            break
        chosen.add(index)
        taken += len(pool[index].text)
    if not 0 < len(chosen) < len(pool):
        raise ConfigError(
            f"split: both sides need a document, got {len(pool)} documents and "
            f"validation_fraction={validation_fraction}; choose another fraction"
        )
    training = [document for index, document in enumerate(pool) if index not in chosen]
    return training, [document for index, document in enumerate(pool) if index in chosen]


def vader_ratings(*, words_only: bool = False) -> dict[str, tuple[int, ...]]:
    """Return the ratings that ten people gave each entry of the VADER lexicon (Hutto and Gilbert 2014), -4 to 4.

    words_only: leave out emoticons, abbreviations with digits, and entries of several words: what is left is
    lower-case ASCII letters only.
    """
    ratings = {}
    for line in _read("vader_ratings.tsv.xz").rstrip("\n").split("\n"):
        token, _, numbers = line.partition("\t")
        if not words_only or (token.isascii() and token.isalpha() and token.islower()):
            ratings[token] = tuple(int(number) for number in numbers.split())
    return ratings


def definitions() -> list[Definition]:
    """Return the definitions of common words, by word."""
    rows = _rows("definitions.jsonl.xz")
    return [Definition(r["word"], r["part"], r["definition"], tuple(r["examples"])) for r in rows]


def quiz_facts() -> list[QuizFact]:
    """Return the quiz questions with their answers, by subject."""
    return [QuizFact(r["question"], tuple(r["answers"]), r["subject"]) for r in _rows("quiz.jsonl.xz")]


def _rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _read(file).splitlines()]


@lru_cache(maxsize=1)
def _read(file: str) -> str:
    # One is kept: a second loader call for the same source comes at once, and the largest holds 11 MB.
    path = DIRECTORY / file
    try:
        return lzma.decompress(path.read_bytes()).decode("utf-8")
    except FileNotFoundError as error:
        raise DataError("assets: the file is missing; install the package again", path) from error
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"assets: the file is damaged ({error}); install the package again", path) from error
