"""Picks the commonest words of WordNet and their first definition with its examples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

# Part of speech by the digit in a sense key; 5 is an adjective that clusters around another.
_PARTS = {"1": "noun", "2": "verb", "3": "adj", "5": "adj"}
_NAMES = {"noun": "noun", "verb": "verb", "adj": "adjective"}
_SENSE = re.compile(r"^(?P<word>[a-z]{3,})%(?P<part>[1235]):\S* (?P<sense>\d+) (?P<count>\d+)$")
_EXAMPLE = re.compile(r'"([^"]+)"')
_UNSUITABLE = re.compile(
    r"offensive|obscen|vulgar|slang|slur|disparag|derogat|sexual|intercourse|genital|prostitut|copulat", re.I
)


class Definition(NamedTuple):
    """One word, its part of speech, the gloss of its first sense and its example sentences."""

    word: str
    part: str
    definition: str
    examples: list[str]


def common_definitions(directory: Path, count: int) -> list[Definition]:
    """Return `count` definitions, those of the words most often met in WordNet's tagged texts, by word."""
    ranked: list[tuple[int, str, str]] = []
    for line in (directory / "cntlist.rev").read_text("ascii").splitlines():
        match = _SENSE.match(line)
        if match and match["sense"] == "1":
            ranked.append((-int(match["count"]), match["word"], _PARTS[match["part"]]))
    places = {part: _first_senses(directory / f"index.{part}") for part in _NAMES}
    synsets = {part: _synsets(directory / f"data.{part}") for part in _NAMES}
    found: dict[tuple[str, str], Definition] = {}
    for _, word, part in sorted(ranked):
        definition = _definition(word, _NAMES[part], synsets[part].get(places[part].get(word, ""), ""))
        if definition and (word, part) not in found:
            found[word, part] = definition
        if len(found) == count:
            return sorted(found.values())
    raise ValueError(f"common_definitions: WordNet holds {len(found)} suitable words, asked for {count}")


def _first_senses(index: Path) -> dict[str, str]:
    offsets = {}
    for line in index.read_text("ascii").splitlines():
        if not line.startswith(" "):  # the licence at the top is indented
            fields = line.split()
            offsets[fields[0]] = fields[-int(fields[2])]
    return offsets


def _synsets(data: Path) -> dict[str, str]:
    lines = (line for line in data.read_text("ascii").splitlines() if not line.startswith(" "))
    return {line[:8]: line for line in lines}


def _definition(word: str, part: str, line: str) -> Definition | None:
    synset, _, gloss = line.partition(" | ")
    if word not in synset.split():  # a name: it is stored there with its capital
        return None
    text = gloss.strip().partition('"')[0].strip(" ;:").replace("`", "'")
    # An example of the synset may use a synonym; the stem tells those that show this word.
    stem = word[: max(3, len(word) - 2)]
    examples = [text.strip().replace("`", "'") for text in _EXAMPLE.findall(gloss) if stem in text.lower()]
    if not text or _UNSUITABLE.search(gloss) or gloss.count('"') % 2:
        return None
    return Definition(word, part, text, examples)
