"""Which pairs near-duplicate removal finds, what it misses at which similarity, how a large bucket stays small."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from instructgpt_fast.data.hygiene import grams, near_duplicates, prepare, spill

from .files import read_jsonl, write_jsonl


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_few_pairs_at_the_threshold_are_missed(threshold: float) -> None:
    bands, rows = grams.bands_of(threshold)
    assert bands * rows <= grams.SIGNATURE
    assert (1 - threshold**rows) ** bands <= 0.02
    longer = grams.SIGNATURE // (rows + 1)
    assert rows == grams.SIGNATURE or (1 - threshold ** (rows + 1)) ** longer > 0.02, "longer bands would miss more"


def test_the_estimate_is_near_the_similarity() -> None:
    draw = random.Random(0)
    errors = []
    for _ in range(60):
        words = np.array([draw.getrandbits(32) for _ in range(120)], dtype=np.uint64)
        other = words.copy()
        other[draw.randrange(4, 115)] += 1
        one, two = grams.shingles(words, 5), grams.shingles(other, 5)
        assert grams.jaccard(np.unique(one), np.unique(two)) == pytest.approx(111 / 121)
        errors.append(np.mean(grams.signature(one) == grams.signature(two)) - 111 / 121)
    assert abs(np.mean(errors)) < 0.015
    assert np.std(errors) < 0.05


def test_similar_pairs_are_found_and_others_stay(tmp_path: Path) -> None:
    """Of 150 pairs with a similarity of 111 / 121 all but a few go, of 150 with 91 / 141 none: 0.8 lies between."""
    draw = random.Random(1)
    texts = []
    for number in range(300):
        words = [f"w{draw.randrange(10**6)}" for _ in range(120)]
        other = list(words)
        for place in (60,) if number < 150 else (20, 40, 60, 80, 100):
            other[place] = "changed"
        texts += [" ".join(words), " ".join(other)]
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    report = prepare(data=source, output_dir=tmp_path / "out", near_duplicate_check="exact", prefix_characters=None,
                     pii="off", quality="off", progress=False)
    assert 147 <= report.removed["near_duplicate"] <= 150


def test_a_bucket_compares_with_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MOST_KEPT", 3)

    def similar(some: list[int], others: list[int]) -> np.ndarray:
        return np.array([[one % 10 == other % 10 for other in others] for one in some])

    found: list[tuple[int, int]] = []
    kept = near_duplicates._compare([], [0, 1, 2, 3, 10, 12, 13, 23], similar, found)
    assert kept == [0, 1, 2]
    assert found == [(10, 0), (12, 2)], "13 and 23 are like 3, which was one too many to keep"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.805, 1.0])
def test_agreement_is_that_of_whole_values(share: float) -> None:
    draw = np.random.default_rng(3)
    theirs = draw.integers(0, 1 << 32, (60, grams.SIGNATURE), dtype=np.uint32)
    mine = np.repeat(theirs[:4], 40, axis=0)
    for place, row in enumerate(mine):
        changed = draw.permutation(grams.SIGNATURE)[: place % 40 * 2]
        row[changed] += np.uint32(256)  # the last byte is the same
    expected = (mine[:, None] == theirs).mean(axis=2) >= share
    assert np.array_equal(near_duplicates.agreeing(mine, theirs, share), expected)
    assert share == 1.0 or expected.sum() > 4


@pytest.mark.parametrize("text, other", [
    ("Der \u00dcbergang", "der U\u0308BERGANG"), ("\u5927\u6d77\u3002\u6df1\u3044", "\u5927 \u6d77 \u6df1 \u3044"),
    ("GPT-3\u306e\u672c", "gpt 3 \u306e \u672c"),
])
def test_words_whatever_their_composition_and_script(text: str, other: str) -> None:
    assert grams.words_of(text).tolist() == grams.words_of(other).tolist()
    assert len(grams.words_of(text)) == len(other.split())


@pytest.mark.parametrize("block, threshold", [(1 << 18, 0.8), (2, 0.8), (2, 1.0)])  # of one band: a last block of one
def test_short_texts_texts_without_words_and_buckets_of_several_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, threshold: float
) -> None:
    """A few words are one run, signs alone are like nothing, and a bucket goes on from block to block."""
    monkeypatch.setattr(spill, "BLOCK_ROWS", block)
    texts = ["Hello there", "!!!", "Good night", "hello, there!", "???", "good NIGHT", "Hello (there)"]
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": text} for text in texts])
    report = prepare(data=source, output_dir=tmp_path / "out", near_duplicates=threshold, quality="off",
                     progress=False)
    assert report.removed == {"near_duplicate": 3}
    found = [(line["place"], line["detail"]["same_as"]) for line in read_jsonl(tmp_path / "out" / "removed.jsonl")]
    assert found == [(f"{source}:{line}", f"{source}:{same}") for line, same in ((4, 1), (6, 3), (7, 1))]


def test_bands_have_buckets_of_their_own() -> None:
    signature = np.full((1, grams.SIGNATURE), 5, dtype=np.uint32)
    assert len(np.unique(grams.band_keys(signature, 18, 7))) == 18
