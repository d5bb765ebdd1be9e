"""Answers sampled from checkpoints, labelled, exported, and read as they are by training."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

import instructgpt_fast as igf
from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.cli.command_line import main
from instructgpt_fast.data import Comparison, Demonstration, read_jsonl
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.label import LabelConfig
from instructgpt_fast.label.answers import AnswerSource, Asked, load_checkpoints
from instructgpt_fast.label.sampling import Sampler
from instructgpt_fast.label.schema import open_database
from instructgpt_fast.label.store import Answer, Store
from instructgpt_fast.model import ScalarModel

from ..serve.served import random_model, save, tokenizer
from .labelled import fill, process, ranking, running, signed_in, wait_until

PROMPTS = [{"prompt": f"the {word}"} for word in ("quick brown fox", "lazy dog", "cat", "mat: café", "fox", "dog")]
TALK = {"messages": [{"role": "user", "content": "the cat?"}, {"role": "assistant", "content": "sat"},
                     {"role": "user", "content": "on?"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    lines = [json.dumps(record) for record in (*PROMPTS, TALK)]
    (path / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def checkpoints(folder: Path) -> list[str]:
    return [save(folder, "one", end_logit=4.0), save(folder, "two", seed=1, end_logit=4.0)]


def sampled(path: Path, checkpoints: list[str], prompts: list[Any], **options: Any) -> tuple[Sampler, dict[str, Any]]:
    """A sampler that has ended, and the answers by prompt."""
    config = LabelConfig(
        database=str(path), checkpoints=checkpoints, device="cpu", **{"max_new_tokens": 12, **options}
    )
    store = Store(path)
    store.add_prompts(prompts)
    sampler = Sampler(store, config)
    sampler.start()
    sampler.wait()
    found: dict[str, Any] = {}
    for content, text, checkpoint, seed in store._connection.execute(
        "SELECT content, text, checkpoint, seed FROM answers JOIN prompts ON prompts.id = prompt_id ORDER BY answers.id"
    ):
        found.setdefault(json.loads(content), []).append((text, checkpoint, seed))
    store.close()
    return sampler, found


def test_answers_depend_on_their_prompt_alone_and_on_each_checkpoint_in_turn(
    tmp_path: Path, checkpoints: list[str]
) -> None:
    prompts = [record["prompt"] for record in PROMPTS]
    sampler, found = sampled(tmp_path / "all.sqlite", checkpoints, prompts, batch_size=5)
    assert sampler.state() == {"state": "done", "waiting": 0, "answered": 6, "problems": 0}
    for answers in found.values():
        assert len({text.strip() for text, _, _ in answers}) == 4
        assert Counter(checkpoint for _, checkpoint, _ in answers) == dict.fromkeys(checkpoints, 2)
    assert len({seed for answers in found.values() for _, _, seed in answers}) == 24
    # The place of an answer does not tell who gave it: there is more than taking turns.
    assert len({tuple(checkpoint for _, checkpoint, _ in answers) for answers in found.values()}) > 2
    # Other order, other company, other batches; and what is there is not sampled again.
    path = tmp_path / "parts.sqlite"
    _, part = sampled(path, checkpoints, prompts[:3:-1], batch_size=32)
    _, whole = sampled(path, checkpoints, prompts[::-1], batch_size=2)
    assert part.items() <= whole.items() and whole == found
    _, other = sampled(tmp_path / "seed.sqlite", checkpoints, prompts[:1], seed=1)
    assert {text for text, _, _ in other[prompts[0]]} != {text for text, _, _ in found[prompts[0]]}


def test_doubled_and_empty_answers_are_drawn_again_and_what_stays_doubled_is_left_out() -> None:
    asked = Asked(1, '"x"', [[1]])
    for slot, text in enumerate(["a", " a\n", "  ", "b"]):
        asked.keep(slot, Answer(text, "m", slot))
    assert {slot: answer.text for slot, answer in asked.kept.items()} == {0: "a", 3: "b"}


def test_what_cannot_be_answered_is_told_and_the_others_go_on(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endless = [save(folder, "three", seed=2, ends=False), save(folder, "four", seed=3, ends=False)]
    # The likeliest token alone: one answer of a checkpoint however often it draws; and a prompt beyond the context.
    sampler, found = sampled(tmp_path / "a.sqlite", endless[:1], ["the cat", "the " * 400], top_p=1e-9)
    assert found == {} and sampler.state()["problems"] == 2
    assert "the checkpoints gave 1 different answers, 2 are needed" in caplog.text
    assert "must be shorter than the context of 256 tokens" in caplog.text
    # With a second checkpoint it has two.
    _, found = sampled(tmp_path / "a.sqlite", endless, [], temperature=0.0)
    assert found.keys() == {"the cat"}
    assert sorted(checkpoint for _, checkpoint, _ in found["the cat"]) == sorted(endless)


def test_of_equal_answers_of_two_checkpoints_none_is_always_preferred(tmp_path: Path, folder: Path) -> None:
    twins = [save(folder, name, seed=2, ends=False) for name in ("left", "right")]
    config = LabelConfig(database="unused", checkpoints=twins, device="cpu", max_new_tokens=4, temperature=0.0)
    source = AnswerSource(load_checkpoints(config), config)
    asked = [source.asked(place, record["prompt"]) for place, record in enumerate(PROMPTS)]
    source.prepare(64)
    source.draw(asked, lambda: False)
    assert all(one.kept.keys() == {0} for one in asked)
    assert {one.kept[0].checkpoint for one in asked} == set(twins)


def test_redraws_are_bounded_and_fill_what_is_missing(checkpoints: list[str]) -> None:
    """Answers of one token are often equal: with redraws there are more different ones, never more than asked."""
    counts = {}
    for redraws in (0, 8):
        config = LabelConfig(
            database="unused", checkpoints=checkpoints, device="cpu", max_new_tokens=1, answers_per_prompt=9,
            redraws=redraws,
        )
        source = AnswerSource(load_checkpoints(config), config)
        asked = [source.asked(place, record["prompt"]) for place, record in enumerate(PROMPTS)]
        source.prepare(64)
        source.draw(asked, lambda: False)
        counts[redraws] = [len(one.kept) for one in asked]
    assert sum(counts[0]) < sum(counts[8]) and max(counts[8]) <= 9


def test_checkpoints_that_cannot_answer_are_told_before_anything_is_served(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reward_model = save_checkpoint(
        tmp_path / "rm", model=ScalarModel.from_gpt(random_model()), tokenizer=tokenizer(), prompt_format="dialogue",
        stage="reward",
    )
    prompts = str(folder / "prompts.jsonl")
    words = ["label", "--database", str(tmp_path / "a.sqlite"), "--prompts", prompts, "--port", "0"]
    for checkpoint, told in ((tmp_path / "none", str(tmp_path / "none")), (reward_model, "must hold a language model")):
        assert main([*words, "--device", "cpu", "--checkpoints", str(checkpoint)]) == 2
        assert told in capsys.readouterr().err
    store = Store(tmp_path / "a.sqlite")
    with pytest.raises(ConfigError, match="stop must be at most 16"):
        Sampler(store, LabelConfig(database="a.sqlite", stop=[""]))
    assert len(store.unanswered()) == 7
    store.close()


def test_a_model_whose_logits_are_no_numbers_ends_sampling_and_not_labelling(tmp_path: Path) -> None:
    model = random_model()
    with torch.no_grad():
        model.ln_f.weight.fill_(float("nan"))
    broken = save_checkpoint(
        tmp_path / "nan", model=model, tokenizer=tokenizer(), prompt_format="dialogue", stage="sft"
    )
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "the cat"}\n')
    with running(
        tmp_path / "labels.sqlite", checkpoints=[str(broken)], prompts=str(tmp_path / "prompts.jsonl"), device="cpu"
    ) as server:
        wait_until(
            lambda: server.http.get("/health").json()["sampling"]["state"] == "failed", lambda: "sampling does not fail"
        )
        ann = signed_in(server.http, "Ann")
        task = ann.task("demonstration")
        assert ann.put(task["id"], 0, {"response": "sat"}).status_code == 200
        told = server.http.get("/api/task", params={"labeler": ann.labeler, "kind": "ranking"}).json()
        assert told["task"] is None and told["progress"]["waiting"] == 1
        assert "the model's logits must be numbers" in told["sampling"]["failure"]


def label_all(url_or_http: Any, labelers: int = 2) -> None:
    """Labelers who prefer longer answers rank everything, and write an answer to everything."""
    for number in range(labelers):
        client = signed_in(url_or_http, f"labeler {number}")
        while (task := client.task()) is not None:
            lengths = {answer["id"]: len(answer["text"]) for answer in task["answers"]}
            groups = [[one for one in lengths if lengths[one] == size] for size in sorted(set(lengths.values()))[::-1]]
            assert client.put(task["id"], 0, {**ranking(task), "ranking": groups}).status_code == 200
        while (task := client.task("demonstration")) is not None:
            text = f"I, {number}, say: the cat sat on the mat, café 😀!"
            assert client.put(task["id"], 0, {"response": text}).status_code == 200


def test_sampled_labelled_exported_and_trained_on(tmp_path: Path, folder: Path, checkpoints: list[str]) -> None:
    database = tmp_path / "labels.sqlite"
    with running(
        database, checkpoints=checkpoints, prompts=str(folder / "prompts.jsonl"), labels_per_task=2, device="cpu",
        max_new_tokens=12,
    ) as server:
        http = server.http
        wait_until(lambda: http.get("/health").json()["sampling"]["state"] == "done", lambda: "sampling does not end")
        label_all(http)
        # While the server runs, from outside and from inside.
        exported = igf.label.export(database, tmp_path / "out")
        assert http.get("/api/export/comparisons").content == (tmp_path / "out" / "comparisons.jsonl").read_bytes()
        answer = http.get("/api/export/demonstrations")
        assert answer.content == (tmp_path / "out" / "demonstrations.jsonl").read_bytes()
        assert answer.headers["content-disposition"] == 'attachment; filename="demonstrations.jsonl"'
    assert (exported.comparisons, exported.demonstrations) == (14, 14)
    assert str(exported) == f"14 demonstrations, 14 comparisons: {tmp_path / 'out'}"
    check_comparisons(tmp_path / "out" / "comparisons.jsonl", checkpoints)
    prompts = {example.prompt for example in read_jsonl(tmp_path / "out" / "demonstrations.jsonl", Demonstration)}
    assert len(prompts) == 7 and any(not isinstance(prompt, str) for prompt in prompts)

    common: dict[str, Any] = {"init": checkpoints[0], "device": "cpu", "num_train_epochs": 1}
    files = {stage: str(tmp_path / "out" / f"{name}.jsonl")
             for stage, name in (("sft", "demonstrations"), ("reward", "comparisons"))}
    for stage, file in files.items():
        trained = igf.train(stage, data=file, output_dir=str(tmp_path / stage), **common)
        assert Path(trained.checkpoint).is_dir()
    accuracy = igf.evaluate(tmp_path / "reward", comparisons=files["reward"], device="cpu")
    assert 0.0 <= accuracy.metrics["reward_accuracy/accuracy"] <= 1.0


@pytest.mark.slow
def test_a_server_stopped_or_killed_while_it_samples_goes_on_and_ends_with_equal_answers(
    tmp_path: Path, folder: Path, checkpoints: list[str]
) -> None:
    def served(name: str, number: signal.Signals | None, after: int) -> Any:
        with process(
            tmp_path / "log", tmp_path / name, "--checkpoints", *checkpoints, "--prompts", str(folder / "long.jsonl"),
            "--device", "cpu", "--max-new-tokens", "100", "--batch-size", "4",
        ) as server, httpx.Client(base_url=server.url(), timeout=60.0) as http:
            wait_until(lambda: http.get("/health").json()["sampling"]["answered"] >= after, lambda: server.told)
            if number is not None:
                server.process.send_signal(number)
                assert server.process.wait(60) == (0 if number is signal.SIGTERM else -number), server.told
                return None
        with contextlib.closing(open_database(tmp_path / name)) as connection:
            return connection.execute("SELECT prompt_id, text, checkpoint, seed FROM answers ORDER BY id").fetchall()

    lines = [json.dumps({"prompt": f"the {place} foxes"}) for place in range(60)]
    (folder / "long.jsonl").write_text("\n".join(lines))
    served("broken", signal.SIGTERM, 2)
    served("broken", signal.SIGKILL, 2)
    with contextlib.closing(open_database(tmp_path / "broken")) as connection:
        assert 4 <= connection.execute("SELECT sum(answered) FROM prompts").fetchone()[0] < 60
        left = 60 - connection.execute("SELECT sum(answered) FROM prompts").fetchone()[0]
    assert served("broken", None, left) == served("whole", None, 60)


def check_comparisons(path: Path, checkpoints: list[str]) -> None:
    """Every comparison says in its ranks that longer is better, and names the two checkpoints' answers."""
    read = read_jsonl(path, Comparison)
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(read) == len(records) == 14
    for example, record in zip(read, records, strict=True):
        sizes = sorted({len(text) for text in example.completions}, reverse=True)
        assert example.ranks == tuple(1 + sizes.index(len(text)) for text in example.completions)
        assert set(record["checkpoints"]) == set(checkpoints)
        assert [rating["overall"] for rating in record["ratings"]] == [4] * 4
        assert all(len(rating["fields"]) == 11 for rating in record["ratings"])
    assert [record["labeler"] for record in records] == ["labeler 0", "labeler 1"] * 7


def test_only_finished_labels_are_exported_in_an_order_that_does_not_depend_on_when(tmp_path: Path) -> None:
    contents = []
    for turn in (1, -1):
        database = tmp_path / f"{turn}.sqlite"
        store = Store(database)
        fill(store)
        ann, ben = (store.sign_in(name).id for name in ("Ann", "Ben"))
        for labeler, task in [(labeler, task) for labeler in (ann, ben) for task in (1, 3, 5)][::turn]:
            payload = ranking(store.task(labeler, task), "1 0=2 3")
            store.save(labeler, task, 0, payload, "draft")
            if (labeler, task) != (ann, 3):
                store.save(labeler, task, 1, payload, "done")
        store.save(ben, 1, 2, ranking(store.task(ben, 1), "3 2 1 0"), "done")
        store.save(ann, 5, 2, ranking(store.task(ann, 5)), "skipped")
        store.close()
        assert main(["label", "export", "--database", str(database), "--output-dir", str(tmp_path / "out")]) == 0
        contents.append((tmp_path / "out" / "comparisons.jsonl").read_bytes())
        assert (tmp_path / "out" / "demonstrations.jsonl").read_bytes() == b""
        assert sorted(os.listdir(tmp_path / "out")) == ["comparisons.jsonl", "demonstrations.jsonl"]
    assert contents[0] == contents[1]
    records = [json.loads(line) for line in contents[0].splitlines()]
    assert [(record["labeler"], record["ranks"]) for record in records] == [
        ("Ann", [2, 1, 2, 3]), ("Ben", [4, 3, 2, 1]), ("Ben", [2, 1, 2, 3]), ("Ben", [2, 1, 2, 3])]
    assert records[0]["checkpoints"] == ["runs/model-0", "runs/model-1"] * 2


def test_a_full_disk_leaves_an_earlier_export_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, out = tmp_path / "labels.sqlite", tmp_path / "out"
    store = Store(database)
    fill(store)
    ann = store.sign_in("Ann").id
    store.save(ann, 1, 0, ranking(store.task(ann, 1)), "done")
    igf.label.export(database, out)
    before = (out / "comparisons.jsonl").read_bytes()
    store.save(ann, 3, 0, ranking(store.task(ann, 3)), "done")
    store.close()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(igf.DataError, match="the disk is full"):
        igf.label.export(database, out)
    monkeypatch.undo()
    assert (out / "comparisons.jsonl").read_bytes() == before
    assert igf.label.export(database, out).comparisons == 2
