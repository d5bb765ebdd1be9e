"""A database that is copied, moved, deleted or archived; names of many scripts; a clock that is set back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.label import agreement, export
from instructgpt_fast.label import schema as label_schema
from instructgpt_fast.label.options import LabelConfig
from instructgpt_fast.label.run import application
from instructgpt_fast.label.store import Answer, Store
from instructgpt_fast.serve.errors import ApiError

from .labelled import fill, filled


def write(store: Store, labeler: int, task: int) -> None:
    store.save(labeler, task, 0, {"response": "mine"}, "done")


@pytest.mark.parametrize("name", ["\u0645\u06cc\u200c\u0646\u0627", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
                                  "\u0e2a\u0e21\u0e0a\u0e32\u0e22", "O\u2019Neil"])
def test_names_of_many_scripts_sign_in(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "labels.sqlite")
    assert store.sign_in(name).name == name
    assert store.sign_in(f" {name} ").id == store.sign_in(name).id
    store.close()


@pytest.mark.parametrize("name", ["\u200d", "\u200c \u200d", "a\u202eb", "\ud800"])
def test_names_that_nobody_sees_are_refused(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "labels.sqlite")
    with pytest.raises(ApiError, match="printable characters"):
        store.sign_in(name)
    store.close()


def test_a_clock_that_was_wrong_holds_no_task_for_years(tmp_path: Path) -> None:
    now = [1e9]
    store = Store(tmp_path / "labels.sqlite", clock=lambda: now[0], lease_seconds=60.0)
    fill(store, prompts=1)
    ann, ben = (store.sign_in(name).id for name in ("Ann", "Ben"))
    now[0] += 1e8
    held, _ = store.next_task(ann, "demonstration")
    assert held is not None
    now[0] -= 1e8
    assert store.next_task(ben, "demonstration")[0] is None, "kept for Ann, for one lease from now"
    now[0] += 61
    assert store.next_task(ben, "demonstration")[0] == held
    store.close()


@pytest.mark.parametrize("ending", ["", "-wal"])
def test_nothing_is_said_to_be_saved_in_a_file_that_is_gone(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "labels.sqlite"
    store = Store(path)
    fill(store)
    ann = store.sign_in("Ann").id
    place, aside = Path(f"{path}{ending}"), tmp_path / "aside"
    os.rename(place, aside)
    for change in (lambda: write(store, ann, 2), lambda: store.sign_in("Ben"), lambda: store.add_prompts(["more"])):
        with pytest.raises(ApiError, match="moved, deleted or replaced while the server runs") as refused:
            change()
        assert refused.value.status == 503
    shutil.copy(aside, place)
    with pytest.raises(ApiError, match="replaced"):
        write(store, ann, 2)
    os.rename(aside, place)
    write(store, ann, 2)
    store.close()
    assert export(path, tmp_path / "out").demonstrations == 1


def test_a_copy_without_its_log_is_told_and_one_with_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    store = Store(path)
    fill(store)
    write(store, store.sign_in("Ann").id, 2)
    (tmp_path / "copies").mkdir()
    copy = tmp_path / "copies" / "copy.sqlite"
    shutil.copy(path, copy)
    with pytest.raises(DataError, match=r"the database is empty; where it was copied .* in the -wal file"):
        export(copy, tmp_path / "out")
    for ending in ("", "-wal"):
        shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    assert export(copy, tmp_path / "out").demonstrations == 1
    store.close()


def test_an_archived_database_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "labels.sqlite")
    fill(store)
    write(store, store.sign_in("Ann").id, 2)
    store.close()
    archive = tmp_path / "archive"
    archive.mkdir()
    shutil.copy(tmp_path / "labels.sqlite", archive)
    # Root may write everywhere, so the disk says no by its word alone; files that appear beside it would betray it.
    monkeypatch.setattr(label_schema.os, "access", lambda path, mode: Path(path) != archive)
    assert export(archive / "labels.sqlite", tmp_path / "out").demonstrations == 1
    assert agreement(archive / "labels.sqlite").labelers == 0
    opened = label_schema.open_database(archive / "labels.sqlite")
    opened.execute("SELECT count(*) FROM labels").fetchone()
    assert [path.name for path in archive.iterdir()] == ["labels.sqlite"]
    opened.close()


def test_texts_of_every_kind_and_nine_long_answers_come_out_as_they_went_in(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    store = Store(path, ratings="none")
    dialogue = [
        {"role": "assistant" if turn % 2 else "user", "content": f"{turn} \u202e\x00\U0001f468\u200d\U0001f467 " * 200}
        for turn in range(17)
    ]
    store.add_prompts([dialogue])
    texts = [f"{'long ' * 4000}\x00\u2028 {place}" for place in range(9)]
    store.add_answers(1, [Answer(text, f"c{place % 2}", place) for place, text in enumerate(texts)])
    ann = store.sign_in("Ann").id
    task, _ = store.next_task(ann, "ranking")
    assert task is not None
    assert task["prompt"] == dialogue
    best_first = [answer["id"] for answer in task["answers"]]
    store.save(ann, task["id"], 0, {"ranking": [[one] for one in best_first], "note": "\x00\u2028"}, "done")
    store.close()
    export(path, tmp_path / "out")
    lines = (tmp_path / "out" / "comparisons.jsonl").read_bytes().split(b"\n")
    assert len(lines) == 2
    found = json.loads(lines[0])
    assert (found["prompt"], found["completions"], found["note"]) == (dialogue, texts, "\x00\u2028")
    assert found["ranks"] == [best_first.index(str(place)) + 1 for place in range(1, 10)]


def test_filled_databases_can_be_opened_again_and_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "labels.sqlite")
    for name in ("Ann", "Ben", "Cleo"):
        store = Store(path)
        write(store, store.sign_in(name).id, 2)
        store.close()
    assert export(path, tmp_path / "out").demonstrations == 3


def test_a_server_without_prompts_says_so(tmp_path: Path) -> None:
    config = LabelConfig(database=str(tmp_path / "labels.sqlite"))
    store = Store(config.database)
    with pytest.raises(ConfigError, match=r"there must be prompts to label, got none in .* and no --prompts"):
        application(config, store)
    store.add_prompts(["one"])
    application(config, store)
    store.close()


def test_one_checkpoint_that_takes_the_likeliest_token_has_nothing_to_rank(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="temperature must be above 0 with fewer than two checkpoints"):
        LabelConfig(database="labels.sqlite", checkpoints=("a",), temperature=0.0)
    LabelConfig(database="labels.sqlite", checkpoints=("a", "b"), temperature=0.0)
    LabelConfig(database="labels.sqlite", temperature=0.0)


def test_of_several_drafts_the_newest_comes_first(tmp_path: Path) -> None:
    now = [1e9]
    store = Store(tmp_path / "labels.sqlite", clock=lambda: now[0])
    fill(store)
    ann = store.sign_in("Ann").id
    for task in (6, 2, 4):
        now[0] += 1
        store.save(ann, task, 0, {"response": "so far"}, "draft")
    found, _ = store.next_task(ann, "demonstration")
    assert found is not None
    assert found["id"] == 4
    store.close()
