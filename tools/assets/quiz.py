"""Reads the fact files of the BSD `quiz` game and words them as questions with accepted answers."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import NamedTuple

_MOST_ANSWERS = 32
_REMARK = re.compile(r"\{ *\([^{}]*\)\}")
_OVERSTRIKE = re.compile(r"[^\w\s]\x08|\x08[^\w\s]")
_UNANSWERED = {"gok", ""}  # the game's own mark for "nobody knows"


class Subject(NamedTuple):
    """Which file, which of its columns is asked, which is the answer, and in what words."""

    file: str
    asked: int
    answer: int
    question: str


SUBJECTS = (
    *(Subject(region, 0, 1, "What is the capital of {}?") for region in ("africa", "america", "asia", "europe")),
    Subject("province", 0, 1, "What is the capital of the Canadian province {}?"),
    Subject("state", 0, 1, "What is the capital of the state of {}?"),
    Subject("state", 0, 3, "What is the state flower of {}?"),
    Subject("elements", 3, 0, "What is the chemical symbol of {}?"),
    Subject("elements", 0, 3, "Which chemical element has the symbol {}?"),
    Subject("elements", 3, 1, "What is the atomic number of {}?"),
    Subject("babies", 0, 1, "Which animal is a {} the young of?"),
    Subject("collectives", 0, 1, "What is a group of {} called?"),
    Subject("flowers", 0, 1, "In the language of flowers, what does {} mean?"),
    Subject("posneg", 0, 1, "What is the opposite of {}?"),
    Subject("latin", 0, 1, "What does the Latin word {} mean?"),
    Subject("morse", 0, 1, "What is the letter {} in Morse code?"),
    Subject("mult", 0, 1, "What is {}?"),
    Subject("arith", 0, 1, "Which number is missing here: {}?"),
    Subject("seq-easy", 0, 1, "Which number comes next: {}?"),
    Subject("pres", 0, 3, "Who was President of the United States after {}?"),
    Subject("sov", 0, 2, "Who reigned in England after {}?"),
    Subject("chinese", 0, 1, "In the Chinese calendar, which year follows the year of the {}?"),
)


class Fact(NamedTuple):
    """A question, its accepted answers with the preferred one first, and the file it comes from."""

    question: str
    answers: list[str]
    subject: str


def quiz_facts(directory: Path) -> list[Fact]:
    """Return the facts of every subject above, in the order of the files, a question that stands twice once."""
    facts: dict[str, Fact] = {}
    for subject in SUBJECTS:
        text = (directory / subject.file).read_text("latin-1").replace("\\\n", "")
        for line in text.splitlines():
            fields = re.split(r"(?<!\\):", line)
            if len(fields) <= max(subject.asked, subject.answer):
                continue
            asked = expand(fields[subject.asked])
            answers = expand(fields[subject.answer])
            if asked and answers and asked[0] not in _UNANSWERED and answers[0] not in _UNANSWERED:
                fact = Fact(subject.question.format(asked[0]), answers, subject.file)
                known = facts.setdefault(fact.question, fact).answers
                known += [answer for answer in answers if answer not in known]
    return list(facts.values())


def expand(pattern: str) -> list[str]:
    """List the strings a quiz pattern accepts: `a|b` either, `{a}` optional, `[a|b]c` grouped, `\\` quotes.

    The first string keeps every optional part and the first alternatives. Optional remarks, as in
    `21{ (Fibonacci)}`, and the overstruck accents of a typewriter are left out.
    """
    pattern = _OVERSTRIKE.sub("", _REMARK.sub("", pattern))
    alternatives, end = _alternatives(pattern, 0)
    if end != len(pattern):
        raise ValueError(f"expand: {pattern!r} closes a bracket that is not open, at {end}")
    texts = (re.sub(r" {2,}", " ", text).strip() for text in alternatives)
    return list(itertools.islice(dict.fromkeys(text for text in texts if text), _MOST_ANSWERS))


def _alternatives(pattern: str, at: int) -> tuple[list[str], int]:
    """Return what the alternatives from `at` accept, and where the bracket that ends them stands."""
    found: list[str] = []
    current = [""]
    while at < len(pattern) and pattern[at] not in "}]":
        character = pattern[at]
        if character == "|":
            found, current = found + current, [""]
        elif character in "{[":
            inner, at = _alternatives(pattern, at + 1)
            if character == "{":
                inner = [*inner, ""]
            pairs = itertools.islice(itertools.product(current, inner), _MOST_ANSWERS)
            current = [left + right for left, right in pairs]
        else:
            at += character == "\\"
            current = [text + pattern[at : at + 1] for text in current]
        at += 1
    return found + current, at
