"""The rules from the outside: what stands in the files behind a run, for every kind of input."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import instructgpt_fast as igf
from instructgpt_fast.cli.command_line import main
from instructgpt_fast.data import Demonstration
from instructgpt_fast.data import read_jsonl as read_examples
from instructgpt_fast.data.hygiene import Report, plan

from .files import outputs, read_jsonl, write_jsonl

WORDS = [first + second for first in ("sea", "sun", "rain", "wind", "moon", "land", "snow", "ice", "fire", "night")
         for second in ("side", "light", "fall", "mill", "beam", "mark", "storm", "field", "place", "ward")]
ALL_TRAIN: dict[str, Any] = {"valid_fraction": 0.0, "test_fraction": 0.0}


def said(number: int) -> str:
    """A sentence of eighteen words for each number, unlike every other."""
    return " ".join(random.Random(number).sample(WORDS, 18)) + "."


def run(data: Any, folder: Path, **options: Any) -> Report:
    return igf.prepare(data=data, output_dir=folder / "out", progress=False, **options)


def removed(report: Report) -> list[tuple[str, str, Any]]:
    found = read_jsonl(report.output_dir / "removed.jsonl")
    return [(Path(one["place"]).name, one["rule"], one["detail"]) for one in found]


def test_lines_stay_as_they_were_given(tmp_path: Path) -> None:
    lines = ['{"prompt":  "Count to ten in French.", "n": 1.50, "nested": {"é": [1, null]}}',
             '{"user": "b", "prompt": "Caf\\u00e9 or tea, what is better?"}']
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(lines).encode())
    report = run(source, tmp_path, **ALL_TRAIN)
    assert report.train.read_text(encoding="utf-8") == "".join(line + "\n" for line in lines)
    assert report.splits["valid"] == {"records": 0, "examples": 0}
    assert report.content["lines"] == 3
    assert not (report.output_dir / ".prepare").exists()


@pytest.mark.parametrize("unit, expected", [
    ("file", ["\ufeffone fine line\ntwo fine line\n\n\nthree fine line"[1:]]),
    ("paragraph", ["one fine line\ntwo fine line", "three fine line"]),
    ("line", ["one fine line", "two fine line", "three fine line"]),
])
def test_units_of_text(tmp_path: Path, unit: Any, expected: list[str]) -> None:
    source = tmp_path / "in.txt"
    source.write_text("\ufeffone fine line\ntwo fine line\n\n\nthree fine line", encoding="utf-8")
    report = run(source, tmp_path, text_unit=unit, near_duplicates=None, **ALL_TRAIN)
    assert [record["text"] for record in read_jsonl(report.train)] == expected
    assert report.kind == "text"


@pytest.mark.parametrize("unit", ["line", "paragraph"])
def test_chunks_cut_between_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: Any) -> None:
    """However small the chunks, records and their places are the same."""
    source = tmp_path / "in.txt"
    source.write_text("".join(f"{said(n)}\n{chr(10) if n % 3 == 2 else ''}" for n in range(60)) * 2, encoding="utf-8")
    whole = run(source, tmp_path / "a", text_unit=unit, kind="prompt")
    monkeypatch.setattr(plan, "CHUNK_BYTES", 300)
    cut = run(source, tmp_path / "b", text_unit=unit, kind="prompt")
    assert len(list(plan.chunks([source], [source.stat().st_size], unit))) > 5
    assert outputs(cut.output_dir) == outputs(whole.output_dir)
    half = 60 if unit == "line" else 20
    assert cut.removed["exact_duplicate"] == half
    first = removed(cut)[0]
    assert first == ("in.txt:81", "exact_duplicate", {"same_as": f"{source}:1"})


def test_splits_are_by_user_and_seed(tmp_path: Path) -> None:
    records = [{"prompt": said(n), "user": f"user {n % 100}"} for n in range(600)]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    options: dict[str, Any] = {"valid_fraction": 0.2, "test_fraction": 0.2, "near_duplicates": None,
                               "prefix_characters": None}
    report = run(source, tmp_path, **options)
    users = {name: {one["user"] for one in read_jsonl(report.output_dir / f"{name}.jsonl")}
             for name in ("train", "valid", "test")}
    assert sum(map(len, users.values())) == 100, "no user in two splits"
    assert 40 <= len(users["train"]) <= 80
    assert 8 <= len(users["valid"]) <= 35
    assert 8 <= len(users["test"]) <= 35
    other = run(source, tmp_path / "other", **options, seed=1)
    assert other.test.read_bytes() != report.test.read_bytes()
    some = run(write_jsonl(tmp_path / "some.jsonl", records[300:]), tmp_path / "some", **options)
    assert {one["user"] for one in read_jsonl(some.test)} <= users["test"], "a user's split is his for good"


def test_private_data_goes_from_the_training_split_alone(tmp_path: Path) -> None:
    records = [{"prompt": f"{said(n)} Write to someone{n}@gmail.com soon.", "user": n} for n in range(60)]
    source = write_jsonl(tmp_path / "in.jsonl", [*records, {"prompt": "A clean sentence about the sea.", "user": "c"}])
    report = run(source, tmp_path, valid_fraction=0.3, test_fraction=0.3)
    assert "gmail" not in report.train.read_text()
    assert "gmail" in report.valid.read_text()
    assert "gmail" in report.test.read_text()
    assert "gmail" not in (report.output_dir / "removed.jsonl").read_text() + json.dumps(dict(report.content))
    assert {(rule, str(detail)) for _, rule, detail in removed(report)} == {("pii", "{'email': 1}")}
    masked = run(source, tmp_path / "masked", valid_fraction=0.3, test_fraction=0.3, pii="mask")
    assert masked.valid.read_bytes() == report.valid.read_bytes()
    private = [one for one in read_jsonl(masked.train) if "soon" in one["prompt"]]
    assert len(private) == report.removed["pii"]
    assert all(one["prompt"].endswith("Write to [EMAIL] soon.") for one in private)
    assert masked.content["pii"] == {"findings": {"email": len(private)}, "records_masked": len(private)}
    kept = run(source, tmp_path / "off", valid_fraction=0.3, test_fraction=0.3, pii="off")
    assert not kept.removed


def test_evaluation_text_goes_from_the_training_split(tmp_path: Path) -> None:
    records = [{"prompt": said(n), "response": f"answer {n}"} for n in range(40)]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    thirteen = " ".join(said(3).split()[2:15])
    nine = "some nine words that are in an answer alone"
    records[5]["response"] = f"Well, {nine}, are they not?"
    write_jsonl(source, records)
    long = write_jsonl(tmp_path / "qa.jsonl", [{"q": thirteen.upper().replace(" ", ", "), "a": ["yes", "no"]},
                                               {"q": "words " * 20}])
    short = tmp_path / "short.txt"
    short.write_text(f"{nine}\n\n{said(3)[:30]}\n")
    report = run(source, tmp_path, contamination=(str(long), str(short)), **ALL_TRAIN)
    assert removed(report) == [("in.jsonl:4", "contamination", [str(long)]),
                               ("in.jsonl:6", "contamination", [str(short)])]
    assert report.content["contamination"] == [
        {"file": str(long), "texts": 4, "too_short": 2, "found": 1, "training_records_removed": 1},
        {"file": str(short), "texts": 2, "too_short": 1, "found": 1, "training_records_removed": 1},
    ]
    assert f"{long}: 1 of 4 texts found in training records" in str(report)
    tested = run(source, tmp_path / "tested", contamination=str(long), valid_fraction=0.0, test_fraction=0.999)
    assert "contamination" not in tested.removed, "other splits are left alone"


def test_how_long_a_run_of_words_is_contamination_and_goes_before_private_data(tmp_path: Path) -> None:
    words = [f"word{chr(97 + n)}" for n in range(20)]
    evaluation = write_jsonl(tmp_path / "eval.jsonl", [words[0] + " " + " ".join(words[1:]),
                                                       " ".join(WORDS[:8]), " ".join(WORDS[20:27])])
    prompts = [" ".join(words[2:14]), " ".join(words[2:15]) + " joe@example.org", " ".join(WORDS[:8]),
               " ".join(WORDS[:7]), " ".join(WORDS[20:27]), "Write to joe@example.org about the sea."]
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": f"Number {n}: {text}"} for n, text in enumerate(prompts)])
    report = run(source, tmp_path, contamination=str(evaluation), near_duplicates=None, **ALL_TRAIN)
    assert [(place, rule) for place, rule, _ in removed(report)] == [
        ("in.jsonl:2", "contamination"), ("in.jsonl:3", "contamination"), ("in.jsonl:6", "pii")]


@pytest.mark.parametrize("regions, text", [((), "The office answers 030 901820 from nine."),
                                           (("DE",), "The office answers [PHONE] from nine.")])
def test_national_numbers_of_regions_are_masked_and_removed(
    tmp_path: Path, regions: tuple[str, ...], text: str
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "The office answers 030 901820 from nine."},
                                                 {"prompt": "How far is the sea?"}])
    masked = run(source, tmp_path / "mask", pii="mask", pii_regions=regions, **ALL_TRAIN)
    assert read_jsonl(masked.train)[0]["prompt"] == text
    assert run(source, tmp_path / "remove", pii_regions=regions, **ALL_TRAIN).removed == ({"pii": 1} if regions else {})


def test_few_shot_instructions_are_expanded_behind_the_rules(tmp_path: Path) -> None:
    """Three pairs count as three examples of their user, and their common beginning is no duplicate."""
    opening = "Answer as a sailor would, with some words about the weather, the wind, the waves and the gulls. " * 2
    records = [
        {"instruction": f"{opening if n == 0 else ''}{said(n)}", "user": "ann",
         "pairs": [[f"query {n} {k}", f"response {n} {k}"] for k in range(3)]} for n in range(4)
    ]
    source = write_jsonl(tmp_path / "in.jsonl", [*records, records[1]])
    report = run(source, tmp_path, max_per_user=8, **ALL_TRAIN)
    assert removed(report) == [
        ("in.jsonl:3", "user_limit", {"max_per_user": 8}), ("in.jsonl:4", "user_limit", {"max_per_user": 8}),
        ("in.jsonl:5", "exact_duplicate", {"same_as": f"{source}:2"}),
    ]
    assert report.splits["train"] == {"records": 2, "examples": 6}
    found = read_examples(report.train, Demonstration)
    assert [one.response for one in found] == [f"response {n} {k}" for n in range(2) for k in range(3)]
    others = "query 0 1\nresponse 0 1\n\nquery 0 2\nresponse 0 2"
    assert found[0].prompt == f"{records[0]['instruction']}\n\n{others}\n\nquery 0 0\n"
    assert "train, examples" in str(report)


def test_duplicates_by_prompt_or_by_record(tmp_path: Path) -> None:
    answers = ("The Baltic.", "The  Baltic.", "Aral.")
    records = [{"prompt": "Name a large sea.", "response": answer} for answer in answers]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    assert run(source, tmp_path / "a").removed == {"exact_duplicate": 2}
    by_record = run(source, tmp_path / "b", compare_by="record", valid_fraction=0.4, test_fraction=0.4)
    assert by_record.removed == {"exact_duplicate": 1}
    assert sorted(counts["records"] for counts in by_record.splits.values()) == [0, 0, 2], "a prompt is in one split"


def test_language_length_and_quality(tmp_path: Path) -> None:
    texts = ["The ships lay in the harbour while the storm went by.",
             "Die Schiffe lagen im Hafen, bis der Sturm vorbei war.",
             "Hi", "%%%% 1234 ---- 5678 ++++ 9999", "The gulls were as loud as ever that evening. " * 9]
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    report = run(source, tmp_path, languages=("en",), min_characters=5, max_characters=200)
    assert [(place, rule) for place, rule, _ in removed(report)] == [
        ("in.jsonl:2", "language"), ("in.jsonl:3", "length"), ("in.jsonl:4", "quality"), ("in.jsonl:5", "length")]
    assert report.content["removed"] == {"length": 2, "quality": 1, "language": 1}


def test_lines_that_cannot_be_read_are_skipped_on_request(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    wrong = (b"not json", b'{"text": "t"}', b'{"prompt": "\xff"}', b'{"prompt": ""}')
    lines = (b'{"prompt": "A fine question?"}', b"", *wrong)
    source.write_bytes(b"\n".join(lines) + b"\n")
    report = run(source, tmp_path, on_bad_line="skip")
    assert [(place, rule) for place, rule, _ in removed(report)] == [
        (f"in.jsonl:{line}", "unreadable") for line in (3, 4, 5, 6)]
    assert report.records == 5


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": said(n)} for n in (1, 2, 3, 3)])
    words = ["prepare", "--data", str(source), "--output-dir", str(tmp_path / "out"), "--near-duplicates", "none"]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "records" in told.out and "- exact_duplicate" in told.out
    assert "prepare: first pass" in told.err
    assert main(["prepare", "--data", str(source), "--tokenizer", "t", "--output-dir", "o"]) == 2
    assert "prepare shards makes token shards" in capsys.readouterr().err
