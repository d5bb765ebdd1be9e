"""The pipeline through files, in tiny parts and blocks, removes exactly what the plain reference removes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructgpt_fast.data.hygiene import PrepareConfig, near_duplicates, plan, prepare, spill

from .files import read_jsonl, write_jsonl
from .reference import Reference, reference

WORDS = ["sea", "sky", "sun", "Sun", "moon", "star", "cloud", "rain", "é", "x", "1", "?"]


@pytest.fixture(scope="module", autouse=True)
def small_parts() -> Iterator[None]:
    """A few records fill a chunk, a part, a block, a buffer; files are not waited for, as no power fails here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "CHUNK_BYTES", 200)
        patch.setattr(spill, "PART_ROWS", 3)
        patch.setattr(spill, "BLOCK_ROWS", 2)
        patch.setattr(spill, "BUFFER_BYTES", 100)
        patch.setattr(near_duplicates, "_BLOCK", 1)
        patch.setattr(near_duplicates, "_CHOSEN", 2)
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).flatmap(
    lambda words: st.lists(st.sampled_from([" ", "  ", "\t"]), min_size=len(words), max_size=len(words)).map(
        lambda gaps: "".join(word + gap for word, gap in zip(words, gaps, strict=True))
    )
)
edited = st.tuples(texts, st.lists(st.sampled_from(["", " star", " moon sea"]), min_size=1, max_size=3)).map(
    lambda pair: [pair[0] * 3 + end for end in pair[1]]
)
users = st.sampled_from([None, None, "a", "b", 3])
records = st.lists(
    st.tuples(st.one_of(texts.map(lambda text: [text]), edited), users), min_size=1, max_size=12
).map(lambda found: [
    {"prompt": text, **({} if user is None else {"user": user})} for prompts, user in found for text in prompts
])


@settings(max_examples=25, deadline=None)
@given(
    records, st.sampled_from([None, 4, 30]), st.sampled_from([None, 0.5, 0.8]), st.sampled_from(["estimate", "exact"]),
    st.sampled_from([None, 1, 3]), st.integers(1, 3),
)
def test_equals_the_reference(
    found: list[dict[str, Any]], prefix: int | None, similar: float | None, check: Any, limit: int | None, words: int
) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        source = write_jsonl(folder / "in.jsonl", found)
        config = PrepareConfig(
            data=(str(source),), output_dir=str(folder / "out"), prefix_characters=prefix, near_duplicates=similar,
            near_duplicate_check=check, near_duplicate_words=words, max_per_user=limit, pii="off", quality="off",
            progress=False,
        )
        expected = reference(found, config)
        report = prepare(config)
        compare(report.output_dir, source, found, expected)
        assert report.records == len(found)
        assert sum(report.removed.values()) == len(expected.removed)
    finally:
        shutil.rmtree(folder)


def compare(output: Path, source: Path, found: list[dict[str, Any]], expected: Reference) -> None:
    removed = {}
    for line in read_jsonl(output / "removed.jsonl"):
        same = line["detail"].get("same_as")
        cause = None if same is None else int(same.rpartition(":")[2]) - 1
        removed[int(line["place"].removeprefix(f"{source}:")) - 1] = (line["rule"], cause)
    assert removed == expected.removed
    assert list(removed) == sorted(removed), "in the order of the input"
    splits = {name: read_jsonl(output / f"{name}.jsonl") for name in ("train", "valid", "test")}
    left = [found[number] for number in expected.left]
    for name, records in splits.items():
        assert records == [record for record in left if record in records], f"{name} keeps the order of the input"
    assert sorted(map(str, left)) == sorted(str(record) for records in splits.values() for record in records)
    of_user = {name: {str(record["user"]) for record in records if "user" in record}
               for name, records in splits.items()}
    assert not of_user["train"] & of_user["valid"]
    assert not of_user["train"] & of_user["test"]
    assert not of_user["valid"] & of_user["test"]
