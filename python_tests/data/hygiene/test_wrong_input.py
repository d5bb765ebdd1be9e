"""Whatever is wrong is said with its place, before anything is written or lost."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.data.hygiene import PrepareConfig, plan, prepare
from instructgpt_fast.errors import ConfigError, DataError

from .files import outputs, read_jsonl, write_jsonl

FINE = [{"prompt": "What is the largest of the seas?"}, {"prompt": "How deep is the deepest lake?"}]


def run(data: Any, out: Path, **options: Any) -> Any:
    return prepare(data=data, output_dir=out, progress=False, **options)


@pytest.mark.parametrize("options, message", [
    ({"data": ()}, "data must name at least one file"),
    ({"max_per_user": 0}, "max_per_user must be at least 1, got max_per_user=0"),
    ({"prefix_characters": 0}, "prefix_characters must be at least 1"),
    ({"near_duplicates": 1.5}, "near_duplicates must be above 0 and at most 1"),
    ({"near_duplicate_words": 0}, "near_duplicate_words must be 1 to 50"),
    ({"valid_fraction": 0.5, "test_fraction": 0.5}, "leave a part for training"),
    ({"valid_fraction": -0.1}, "must not be negative"),
    ({"min_characters": 9, "max_characters": 8}, "max_characters must not be below min_characters"),
    ({"processes": 0}, "processes must be at least 1"),
    ({"langauges": ("en",)}, "unknown option 'langauges', did you mean 'languages'"),
    ({"pii": "hide"}, "pii must be one of"),
])
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PrepareConfig(**{"data": ("in.jsonl",), "output_dir": "out", **options})


@pytest.mark.parametrize("options, message", [
    ({"languages": ("xx",)}, "languages: codes of ISO 639-1"), ({"pii_regions": ("ZZ",)}, "ZZ"),
])
def test_codes_are_checked_before_work(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", FINE)
    with pytest.raises(ConfigError, match=message):
        run(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_config_or_options() -> None:
    config = PrepareConfig(data=("in.jsonl",), output_dir="out")
    with pytest.raises(ConfigError, match=r"got both \(seed\)"):
        prepare(config, seed=1)


def test_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from instructgpt_fast.data.hygiene import grams

    monkeypatch.setitem(sys.modules, "datasketch", None)
    grams._minhash.cache_clear()
    source = write_jsonl(tmp_path / "in.jsonl", FINE)
    with pytest.raises(ConfigError, match=r"pip install 'instructgpt_fast\[hygiene\]'"):
        run(source, tmp_path / "out")
    assert run(source, tmp_path / "out", near_duplicates=None).records == 2


@pytest.mark.parametrize("content, options, message", [
    (None, {}, "there is no such file"),
    (b"", {}, "must hold at least one record"),
    (b"", {"kind": "prompt"}, "must hold at least one record"),
    (b"\n \n", {"kind": "prompt"}, "must hold at least one record"),
    (b'{"prompt": "fine"}\n\nno json\n', {}, r"in.jsonl:3: .*must be one JSON object"),
    (b'{"prompt": "fine"}\n{"text": "t"}\n', {}, r"in.jsonl:2: .*'prompt'"),
    (b'{"prompt": "fine"}\n{"prompt": "p", "user": {}}\n', {}, r"in.jsonl:2: .*'user' must be text"),
    (b'{"name": "n", "age": 3}\n', {}, r"in.jsonl:1: .*got the fields 'name', 'age'; see"),
    (b'["prompt"]\n', {}, r"in.jsonl:1: .*must be an object .*got the fields none"),
    (b'nonsense\n{"name": "n"}\n', {"on_bad_line": "skip"}, r"in.jsonl:1: .*must be one JSON object"),
    (b'{"prompt": "p"}\n', {"contamination": "none.jsonl"}, "there is no such file"),
    (b'{"prompt": "p"}\n', {"min_characters": 100}, r"removed.jsonl: .*all removed \(length 1\)"),
])
def test_data(tmp_path: Path, content: bytes | None, options: dict[str, Any], message: str) -> None:
    source = tmp_path / "in.jsonl"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(DataError, match=message):
        run(source, tmp_path / "out", **options)


def test_the_line_of_an_error_is_counted_through_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CHUNK_BYTES", 64)
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"prompt": "fine"}\n\n' * 40 + b"bad\n" + b'{"prompt": "fine"}\n' * 9)
    with pytest.raises(DataError, match=r"in.jsonl:81: "):
        run(source, tmp_path / "out")


def test_a_record_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "RECORD_BYTES", 60)
    source = write_jsonl(tmp_path / "in.jsonl", [*FINE, {"prompt": "long " * 30}, {"prompt": "Are there more?"}])
    with pytest.raises(DataError, match=r"in.jsonl:3: .*at most 0 MiB, got 165 bytes"):
        run(source, tmp_path / "out")
    report = run(source, tmp_path / "skipped", on_bad_line="skip", near_duplicates=None)
    assert report.removed == {"unreadable": 1}
    text = tmp_path / "in.txt"
    text.write_text("A line of some words.\n" * 9)
    with pytest.raises(DataError, match=r"in.txt:1: .*text_unit='paragraph' or 'line'"):
        run(text, tmp_path / "text")


def test_text_where_demonstrations_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("text")
    with pytest.raises(DataError, match=r"a .txt file holds text or prompts, got kind='demonstration'"):
        run(tmp_path / "in.txt", tmp_path / "out", kind="demonstration")


def test_a_file_named_twice(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "in.jsonl", FINE)
    with pytest.raises(DataError, match="must be named once"):
        run((str(tmp_path / "data"), str(tmp_path / "data" / "in.jsonl")), tmp_path / "out")


@pytest.mark.parametrize("out", ["data", "data/out", "."])
def test_output_and_data_are_apart(tmp_path: Path, out: str) -> None:
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "in.jsonl", FINE)
    with pytest.raises(ConfigError, match="output_dir must not hold the data nor lie in it"):
        run(str(tmp_path / "data"), tmp_path / out)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "in.jsonl"]


def test_foreign_files_are_not_touched(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", FINE)
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.jsonl").write_text("precious")
    with pytest.raises(ConfigError, match=r"must be empty or hold this run, got train.jsonl"):
        run(source, out)
    assert (out / "train.jsonl").read_text() == "precious"
    (out / "train.jsonl").unlink()
    (out / "report.json").write_text("[]")
    with pytest.raises(ConfigError, match="must be a report of this command"):
        run(source, out)


def test_a_finished_run_is_kept(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", FINE)
    report = run(source, tmp_path / "out")
    before = outputs(tmp_path / "out")
    assert run(source, tmp_path / "out").content == report.content, "not done again: the times are the same"
    with pytest.raises(ConfigError, match="a finished run with other options or other input"):
        run(source, tmp_path / "out", seed=1)
    write_jsonl(source, [*FINE, *FINE])
    with pytest.raises(ConfigError, match="a finished run with other options or other input"):
        run(source, tmp_path / "out", resume=False)
    assert outputs(tmp_path / "out") == before
    write_jsonl(source, FINE)
    report.train.write_text("")
    with pytest.raises(DataError, match=r"train.jsonl: .*must have \d+ bytes"):
        run(source, tmp_path / "out")


@pytest.mark.parametrize("line", [
    '{"joe@example.org": 1}', '{"prompt": "p", "prompt": "q", "joe@example.org": 1, "joe@example.org": 2}',
    '{"messages": [{"role": "joe@example.org", "content": "c"}]}',
])
def test_what_is_told_of_unreadable_lines_quotes_none_of_their_text(tmp_path: Path, line: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(f"{line}\n" + '{"prompt": "What is the largest of the seas?"}\n')
    report = run(source, tmp_path / "out", kind="prompt", on_bad_line="skip")
    assert report.removed == {"unreadable": 1}
    (removed,) = read_jsonl(tmp_path / "out" / "removed.jsonl")
    assert "joe" not in str(removed) and len(removed["detail"]) > 20


def test_files_that_cannot_be_read_twice_or_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="a regular file is needed"):
        run(tmp_path / "pipe.jsonl", tmp_path / "out")
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    Path(name).write_text("text")
    with pytest.raises(DataError, match=r"must be UTF-8, got .*caf\\udce9.txt'; rename it"):
        run(name, tmp_path / "out")
