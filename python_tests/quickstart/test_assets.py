"""The shipped texts and ratings: whole, as SOURCES.md states them, and readable."""

from __future__ import annotations

import hashlib
import lzma
import re
import unicodedata
from pathlib import Path

import pytest

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.quickstart import assets

ROW = re.compile(r"^\| `(?P<file>[^`]+\.xz)` \| (?P<packed>[\d,]+) \| (?P<plain>[\d,]+) \| `(?P<sum>\w+)` \|$", re.M)
CHAPTERS = {"austen": 269, "moby_dick": 136, "state_of_the_union": 233, "bible": 1378}


def test_every_file_is_the_one_that_sources_describes() -> None:
    rows = list(ROW.finditer((assets.DIRECTORY / "SOURCES.md").read_text("utf-8")))
    assert {row["file"] for row in rows} == {path.name for path in assets.DIRECTORY.glob("*.xz")}
    for row in rows:
        packed = (assets.DIRECTORY / row["file"]).read_bytes()
        assert hashlib.sha256(packed).hexdigest() == row["sum"], row["file"]
        assert f"{len(packed):,}" == row["packed"]
        assert f"{len(lzma.decompress(packed)):,}" == row["plain"]


def test_assets_stay_small() -> None:
    assert sum(path.stat().st_size for path in assets.DIRECTORY.iterdir()) < 6_500_000


@pytest.mark.parametrize("name", assets.CORPORA)
def test_corpus_is_titled_paragraphs_of_clean_text(name: str) -> None:
    documents = assets.corpus(name)
    assert len(documents) == CHAPTERS[name]
    assert len({document.title for document in documents}) == len(documents)
    for document in documents:
        lines = document.text.split("\n")
        assert lines[0] == document.title and len(lines) > 1
        assert all(line and line == line.strip() and "  " not in line for line in lines)
        assert unicodedata.is_normalized("NFC", document.text)
        odd = {c for c in document.text if unicodedata.category(c)[0] == "C" and c != "\n"}
        assert not odd, f"{document.title}: {odd}"


def test_corpus_begins_as_the_books_do() -> None:
    documents = {document.title: document.text for document in assets.corpus(("austen", "moby_dick"))}
    opening = documents["Pride and Prejudice, Chapter 1"].split("\n")[1]
    assert opening == (
        "It is a truth universally acknowledged, that a single man in possession "
        "of a good fortune, must be in want of a wife."
    )
    assert documents["Moby-Dick, Chapter 1. Loomings."].split("\n")[1].startswith("Call me Ishmael. Some years ago")
    assert documents["Emma, Volume III, Chapter XIX"].endswith("the perfect happiness of the union.")
    titles = list(documents)
    assert titles.index("Emma, Volume I, Chapter I") < titles.index("Moby-Dick, Epilogue")


def test_unknown_corpus_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="must be one of austen, moby_dick, state_of_the_union, bible, got 'dickens'"):
        assets.corpus(("austen", "dickens"))


def test_damaged_and_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "DIRECTORY", tmp_path)
    assets._read.cache_clear()
    with pytest.raises(DataError, match=r"austen.txt.xz: assets: the file is missing; install"):
        assets.corpus()
    (tmp_path / "austen.txt.xz").write_bytes(lzma.compress(b"text")[:-9])
    with pytest.raises(DataError, match=r"austen.txt.xz: assets: the file is damaged"):
        assets.corpus()


def test_split_is_by_title_and_near_the_fraction() -> None:
    documents = assets.corpus("austen")
    training, validation = assets.split(documents, 0.1)
    assert sorted(training + validation) == sorted(documents)
    assert not set(training) & set(validation)
    share = sum(len(d.text) for d in validation) / sum(len(d.text) for d in documents)
    longest = max(len(d.text) for d in documents) / sum(len(d.text) for d in documents)
    # Whole documents are taken until the share is reached: at most one document too many.
    assert 0.1 <= share < 0.1 + longest
    assert set(assets.split(documents[::-1], 0.1)[1]) == set(validation)
    assert validation == [d for d in documents if d in set(validation)]


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_split_refuses_an_empty_side(fraction: float) -> None:
    with pytest.raises(ConfigError, match=f"got 269 documents and validation_fraction={fraction}"):
        assets.split(assets.corpus("austen"), fraction)


def test_vader_has_ten_ratings_an_entry() -> None:
    ratings = assets.vader_ratings()
    assert len(ratings) == 7506
    assert all(len(row) == 10 and all(-4 <= rating <= 4 for rating in row) for row in ratings.values())
    assert ratings["happy"] == (2, 2, 2, 4, 2, 4, 3, 4, 2, 2)
    assert ":)" in ratings and "can't stand" in ratings
    words = assets.vader_ratings(words_only=True)
    assert words["happy"] == ratings["happy"]
    assert len(words) > 7000 and all(re.fullmatch("[a-z]+", word) for word in words)


def test_definitions_show_their_word() -> None:
    rows = assets.definitions()
    assert len(rows) == 4000 == len({(row.word, row.part) for row in rows})
    assert {row.part for row in rows} == {"noun", "verb", "adjective"}
    for row in rows:
        stem = row.word[: max(3, len(row.word) - 2)]
        assert row.definition and all(stem in example.lower() for example in row.examples)
    dog = next(row for row in rows if (row.word, row.part) == ("dog", "noun"))
    assert "domesticated by man since prehistoric times" in dog.definition


def test_quiz_facts_are_questions_with_answers() -> None:
    facts = assets.quiz_facts()
    assert len(facts) > 1200 and len({fact.question for fact in facts}) == len(facts)
    answers = {fact.question: fact.answers for fact in facts}
    assert answers["What is the capital of Costa Rica?"] == ("San Jose",)
    assert answers["What is the capital of Moldova?"] == ("Chisinau", "Kishinev")
    assert "William McKinley" in answers["Who was President of the United States after Grover Cleveland?"]
    assert all(fact.question.endswith("?") and all(fact.answers) for fact in facts)
