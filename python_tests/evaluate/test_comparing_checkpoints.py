"""Checkpoints held against each other: the alignment tax and win rates, by a scorer and by people's exported labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import instructgpt_fast as igf
from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.cli import main
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.evaluate import alignment_tax, win_rate
from instructgpt_fast.evaluate.human_judgments import side_of
from instructgpt_fast.evaluate.win_rate import joined_items, wins
from instructgpt_fast.generate import complete
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer
from python_tests.model.reference import random_gpt
from python_tests.train.material import SENTENCES, write_jsonl

NAMES = ("base", "sft", "ppo")


class Runs:
    """Runs of three unlike models with one tokenizer, a reward model, and some data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = Tokenizer.train([*SENTENCES, "Q: What is the capital of France?\nA: Paris"] * 2, 320)
        config = GPTConfig(self.tokenizer.vocab_size, n_positions=256, n_layer=1, n_head=2, d_model=32)
        self.paths = {name: self.save(name, self.model(config, seed)) for seed, name in enumerate(NAMES)}
        self.reward = self.save("reward", ScalarModel.from_gpt(self.model(config, 9)))
        self.prompts = str(write_jsonl(folder / "prompts.jsonl", [{"prompt": text} for text in SENTENCES[:6]]))
        write_jsonl(folder / "hellaswag.jsonl", [
            {"activity_label": "Cooking", "ctx": text, "label": 0,
             "endings": ["He eats.", "A stone sings.", "It rains."]}
            for text in SENTENCES[:8]
        ])
        write_jsonl(folder / "french_to_english.jsonl", [{"source": t, "target": t} for t in SENTENCES[:4]])
        write_jsonl(folder / "drop.jsonl", [
            {"passage": t, "question": "How many?", "answers": ["two", "2"]} for t in SENTENCES[:4]
        ])

    def model(self, config: GPTConfig, seed: int) -> GPT:
        model = random_gpt(config, seed=seed)
        with torch.no_grad():
            model.wte.weight[self.tokenizer.eos_id] = 0.0  # answers of some length
        return model

    def save(self, name: str, model: GPT | ScalarModel) -> str:
        path = self.folder / "runs" / name / "checkpoint-000007"
        return str(save_checkpoint(
            path, model=model, tokenizer=self.tokenizer, prompt_format="raw", stage=name))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("comparing"))


def test_the_tax_holds_every_checkpoint_against_the_first(runs: Runs, tmp_path: Path) -> None:
    paths = list(runs.paths.values())
    tax = alignment_tax(paths, data=str(runs.folder), output=str(tmp_path / "tax.json"),
                        records=str(tmp_path / "records.jsonl"))
    assert tax.names == NAMES
    rows = {(row.task, row.metric): row for row in tax.rows}
    assert list(dict.fromkeys(row.task for row in tax.rows)) == ["hellaswag", "drop", "french_to_english"]
    for path, evaluation in zip(paths, tax.evaluations, strict=True):
        alone = igf.evaluate(path, tasks=["translation"], data=str(runs.folder / "french_to_english.jsonl"))
        assert evaluation.metrics["french_to_english/bleu"] == alone.metrics["translation/bleu"]
    row = rows["hellaswag", "accuracy"]
    assert row.differences[0] is None  # the first is held against nothing
    for place, difference in list(enumerate(row.differences))[1:]:
        assert difference is not None
        assert difference.value == pytest.approx(row.rows[place].value - row.rows[0].value)
    assert rows["french_to_english", "eos_rate"].rows[0].count == 4
    written = json.loads((tmp_path / "tax.json").read_text(encoding="utf-8"))
    assert list(written["checkpoints"]) == list(NAMES)
    first = written["rows"][0]["checkpoints"]
    assert set(first["base"]) == {"value"}
    assert row.differences[2] is not None and row.differences[2].interval is not None
    assert first["ppo"]["difference"] == {
        "value": row.differences[2].value, "interval": list(row.differences[2].interval), "verdict": None}
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["checkpoint"] for line in lines if line["task"] == "drop"] == [n for n in NAMES for _ in range(4)]
    header = str(tax).splitlines()[0].split("  ")
    assert [cell.strip() for cell in header if cell.strip()] == [
        "task", "metric", "base", "sft", "- base (95 %)", "ppo", "- base (95 %)"]


def test_a_checkpoint_has_no_tax_against_itself(runs: Runs) -> None:
    base = runs.paths["base"]
    copied = Path(base).parent.with_name("copy")
    if not copied.exists():
        copied.symlink_to(Path(base).parent)
    tax = alignment_tax([base, str(copied / "checkpoint-000007")], data=str(runs.folder))
    for row in tax.rows:
        assert row.differences[1] is not None and row.differences[1].value == 0.0
        assert row.verdict(1) == ""


def test_what_is_clear_is_said_in_the_direction_of_its_metric(runs: Runs, tmp_path: Path) -> None:
    """A model, and one whose output is scaled to nonsense; fewer bits are better, so its difference is worse."""
    config = GPTConfig(runs.tokenizer.vocab_size, n_positions=256, n_layer=1, n_head=2, d_model=32)
    broken = runs.model(config, 0)
    with torch.no_grad():
        broken.wte.weight.mul_(30.0)
    path = str(save_checkpoint(
        tmp_path / "broken", model=broken, tokenizer=runs.tokenizer, prompt_format="raw", stage="s"))
    task = tmp_path / "text.toml"
    write_jsonl(tmp_path / "text.jsonl", [{"text": text} for text in SENTENCES[:8]])
    task.write_text('kind = "perplexity"\ndata = "text.jsonl"\n', encoding="utf-8")
    tax = alignment_tax([runs.paths["base"], path], tasks=[str(task)])
    verdicts = {row.metric: row.verdict(1) for row in tax.rows}
    assert verdicts["bits_per_byte"] == "worse"
    assert tax.content()["rows"][2]["checkpoints"]["broken"]["difference"]["verdict"] == "worse"
    assert " worse" in str(tax)
    other = alignment_tax([path, runs.paths["base"]], tasks=[str(task)])
    assert {row.metric: row.verdict(1) for row in other.rows}["bits_per_byte"] == "better"


def test_a_task_without_items_is_told_without_an_interval(runs: Runs, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(SENTENCES), encoding="utf-8")
    tax = alignment_tax([runs.paths["base"], runs.paths["sft"]], tasks=["perplexity"], data=str(text))
    row, = (row for row in tax.rows if row.metric == "loss")
    assert row.differences == (None, None) and row.higher_is_better is False
    assert row.cells()[-1] == f"{row.rows[1].value - row.rows[0].value:+.3g}"


def test_the_command_prints_the_table(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--alignment-tax", *runs.paths.values(), "--data", str(runs.folder), "--limit", "3"]) == 0
    out = capsys.readouterr().out
    assert "hellaswag" in out and "- base (95 %)" in out


def length_of(texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def test_a_function_judges_answers_of_both(runs: Runs, tmp_path: Path) -> None:
    first, second = runs.paths["sft"], runs.paths["ppo"]
    options = {"prompts": runs.prompts, "max_new_tokens": 8, "seed": 3}
    found = win_rate(first, second, judge=length_of, records=str(tmp_path / "r.jsonl"),
                     output=str(tmp_path / "w.json"), **options)
    prompts = [json.loads(line)["prompt"] for line in Path(runs.prompts).read_text(encoding="utf-8").splitlines()]
    texts = [complete(path, prompts, max_new_tokens=8, temperature=1.0, seed=3) for path in (first, second)]
    gaps = [len(a.text) - len(b.text) for a, b in zip(*texts, strict=True)]
    assert found.metrics["win_rate"] == pytest.approx(np.mean([(np.sign(gap) + 1) / 2 for gap in gaps]))
    assert found.metrics["score_difference"] == pytest.approx(np.mean(gaps))
    other = win_rate(second, first, judge=length_of, **options)
    assert other.metrics["win_rate"] == pytest.approx(1.0 - found.metrics["win_rate"])
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["answers"]["sft"] for line in lines] == [one.text for one in texts[0]]
    assert json.loads((tmp_path / "w.json").read_text(encoding="utf-8"))["over"]["win_rate"] == len(prompts)


def test_a_reward_model_judges_by_the_command(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(Path(runs.paths["sft"]).parent)
    words = ["evaluate", "--win-rate", runs.paths["sft"], run, "--prompts", runs.prompts, "--judge",
             runs.reward, "--max-new-tokens", "6", "--limit", "4"]
    assert main(words) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{runs.paths['sft']} against {run}, judged by {runs.reward}"
    line, = (line for line in out if line.startswith("win_rate"))
    assert line.split()[1] == "0.5"  # the same model, the same seeds: all ties


def test_wins() -> None:
    assert wins(np.array([2.0, -0.1, 0.0])).tolist() == [1.0, 0.0, 0.5]


def label(prompt: str, ranks: list[int], labeler: str = "ann", **more: Any) -> dict[str, Any]:
    """Answers of sft, ppo, ppo and a third model, ranked."""
    checkpoints = ["runs/sft/checkpoint-000007", "runs/ppo", "runs/ppo/checkpoint-000002", "runs/other"]
    return {"prompt": prompt, "completions": ["a", "b", "c", "d"], "ranks": ranks, "checkpoints": checkpoints,
            "labeler": labeler, **more}


def test_people_judge_by_their_exported_labels(tmp_path: Path) -> None:
    ratings = [{"overall": 6, "fields": {"hallucination": False}}, {"overall": 3, "fields": {"hallucination": True}},
               {"overall": 4, "fields": {"hallucination": None}}, {"overall": 7, "fields": {"hallucination": True}}]
    path = write_jsonl(tmp_path / "c.jsonl", [
        label("x", [1, 2, 3, 1], ratings=ratings),  # sft wins both pairs
        label("x", [2, 1, 2, 3], "bob"),  # sft loses one and ties one
        label("y", [3, 1, 2, 4]),  # sft loses both
    ])
    found = win_rate("runs/sft", "runs/ppo", comparisons=str(path))
    by_name = {measure.metric: measure for measure in found.measures}
    assert found.metrics["win_rate"] == pytest.approx((2 + 0.5 + 0) / 6)
    assert found.metrics["ties"] == pytest.approx(1 / 6)
    assert by_name["win_rate"].over == 6 and len(by_name["win_rate"].items) == 2  # prompts are what is sampled
    assert by_name["win_rate"].interval() is not None
    assert (found.metrics["overall_sft"], found.metrics["overall_ppo"]) == (6.0, 3.5)
    assert (found.metrics["hallucination_sft"], found.metrics["hallucination_ppo"]) == (0.0, 1.0)
    assert "people" in str(found)


@pytest.mark.parametrize(("record", "words"), [
    ({"checkpoints": ["sft"]}, ["c.jsonl:1", "'checkpoints' must name the model of each of the 4"]),
    *(({"ratings": wrong}, ["c.jsonl:1", "'ratings' must hold for each of the 4", f"got {wrong!r}"]) for wrong in (
        [1, 2, 3, 4], {}, [], [{}] * 3, [{"overall": "7"}] * 4, [{"overall": True}] * 4, [{"fields": ["a"]}] * 4,
        [{"fields": {"hallucination": "yes"}}] * 4,
    )),
    ({"checkpoints": ["a", "b", "b", "c"]}, ["answers of both runs/sft and runs/ppo", "got labels of a, b, c"]),
    ({"ranks": [1, 2]}, ["c.jsonl:1", "one rank for each of the 4"]),
])
def test_labels_that_tell_nothing(tmp_path: Path, record: dict[str, Any], words: list[str]) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{**label("x", [1, 2, 3, 4]), **record}])
    with pytest.raises(DataError) as caught:
        win_rate("runs/sft", "runs/ppo", comparisons=str(path))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(("options", "words"), [
    ({}, "give one of checkpoint, alignment_tax and win_rate"),
    ({"checkpoint": "a", "win_rate": ("a", "b")}, "give one of checkpoint, alignment_tax and win_rate"),
    ({"alignment_tax": ("a",), "data": "d"}, "two checkpoints or more"),
    ({"win_rate": ("a", "b", "c"), "comparisons": "c"}, "win_rate compares two"),
    ({"win_rate": ("a", "b")}, "needs prompts and a judge, or comparisons"),
    ({"win_rate": ("a", "b"), "prompts": "p"}, "needs prompts and a judge, or comparisons"),
    ({"win_rate": ("a", "b"), "prompts": "p", "judge": "r", "comparisons": "c"}, "needs prompts and a judge"),
    ({"win_rate": ("a", "b"), "comparisons": "c", "tasks": ("code",)}, "win_rate has no tasks"),
    ({"win_rate": ("a", "b"), "prompts": "p", "judge": "r", "temperature": -1.0}, "temperature must not be negative"),
    ({"checkpoint": "a", "data": "d", "judge": "r"}, "judge is for win_rate"),
    ({"checkpoint": "a", "data": "d", "max_new_tokens": 9}, "max_new_tokens is for win_rate, and a task file says"),
    ({"checkpoint": "a", "data": "d", "temperature": 0.5}, "temperature is for win_rate"),
    ({"checkpoint": "a", "data": "d", "seed": 1}, "seed is for win_rate"),
    ({"win_rate": ("a", "b"), "comparisons": "c", "data": "d"}, "data is for tasks"),
    ({"win_rate": ("a", "b"), "comparisons": "c", "seed": 1}, "seed is for answers to prompts"),
    ({"win_rate": ("a", "b"), "comparisons": "c", "records": "r"}, "records is for answers to prompts"),
    ({"alignment_tax": ("a", "b")}, "alignment_tax needs tasks, or as data a folder"),
    ({"alignment_tax": ("a", "b"), "data": "d", "comparisons": "c"}, "no task reads comparisons, got comparisons='c'"),
    ({"checkpoint": "a", "tasks": ("a.toml",), "data": "d"}, "no task reads data, got data='d'"),
    ({"checkpoint": "a"}, "give tasks, data or comparisons to measure on"),
])
def test_options_that_mean_nothing(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        igf.evaluate.EvaluateConfig(**options)


def test_wrong_folders_and_names(runs: Runs, tmp_path: Path) -> None:
    pair = [runs.paths["base"], runs.paths["sft"]]
    with pytest.raises(ConfigError, match=r"hellaswag\.jsonl, squad_v2\.jsonl.*got none"):
        alignment_tax(pair, data=str(tmp_path))
    with pytest.raises(ConfigError, match=r"prompts\.jsonl, which is no folder"):
        alignment_tax(pair, data=runs.prompts)
    with pytest.raises(ConfigError, match=r"must differ, got .*base.checkpoint-000007 twice"):
        alignment_tax([pair[0], pair[0]], data=str(runs.folder))
    with pytest.raises(ConfigError, match=r"call evaluate\.alignment_tax or evaluate\.win_rate"):
        igf.evaluate(igf.evaluate.EvaluateConfig(alignment_tax=tuple(pair), data=str(runs.folder)))


@pytest.mark.parametrize(("name", "pair", "side"), [
    ("runs/ppo", ("runs/sft", "runs/ppo"), 1),
    ("ppo", ("runs/sft", "runs/ppo"), 1),  # by its name alone
    ("elsewhere/ppo/checkpoint-000009", ("runs/sft", "runs/ppo"), 1),
    ("runs/ppo/", ("runs/sft", "./runs/ppo"), 1),
    ("a/ppo/checkpoint-000009", ("a/ppo", "b/ppo"), 0),  # two runs of one name, by their folders
    ("b/ppo", ("a/ppo/checkpoint-000009", "b/ppo/checkpoint-000009"), 1),
    ("ppo", ("a/ppo", "b/ppo"), None),
    ("runs/ppo/checkpoint-000009", ("runs/ppo/checkpoint-000005", "runs/ppo/checkpoint-000009"), 1),
    ("runs/ppo/checkpoint-000005", ("runs/ppo", "runs/ppo/checkpoint-000005"), 1),
    ("runs/ppo/checkpoint-000007", ("runs/sft", "runs/ppo/checkpoint-000009"), None),  # another step of the run
    ("runs/other", ("runs/sft", "runs/ppo"), None),
])
def test_whose_answer_a_label_names(name: str, pair: tuple[str, str], side: int | None) -> None:
    assert side_of(name, pair) == side


def test_one_prompt_is_one_item(runs: Runs, tmp_path: Path) -> None:
    """A prompt that stands twice in the file is answered twice, and counts once."""
    assert joined_items(["a", "b", "a"])(np.array([1.0, 0.5, 0.0])).tolist() == [0.5, 0.5]
    turn = [{"role": "user", "content": SENTENCES[0]}]
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": turn}, {"prompt": SENTENCES[1]}, {"prompt": turn}])
    found = win_rate(runs.paths["sft"], runs.paths["ppo"], prompts=str(path), judge=length_of, max_new_tokens=4)
    assert [record["prompt"] for record in found.records] == [turn, SENTENCES[1], turn]
    gaps = [np.sign(record["scores"]["sft"] - record["scores"]["ppo"]) for record in found.records]
    first, = (measure for measure in found.measures if measure.metric == "win_rate")
    assert first.items[:, 0].tolist() == [(gaps[0] + gaps[2]) / 4 + 0.5, gaps[1] / 2 + 0.5]
    copied = write_jsonl(tmp_path / "copy.jsonl", [{"prompt": turn}, {"prompt": SENTENCES[1]}, {"prompt": turn}])
    other = write_jsonl(tmp_path / "p.jsonl", [{"prompt": turn}, {"prompt": SENTENCES[2]}, {"prompt": turn}])
    options = {"judge": length_of, "max_new_tokens": 4}
    again = win_rate(runs.paths["sft"], runs.paths["ppo"], prompts=str(copied), **options)
    assert again.measures[0].difference(first).value == 0.0  # the prompts count, not the name of their file
    with pytest.raises(ConfigError, match="one metric of the same items"):
        win_rate(runs.paths["sft"], runs.paths["ppo"], prompts=str(other), **options).measures[0].difference(first)


def test_length_and_ending_stand_beside_the_verdict(runs: Runs) -> None:
    found = win_rate(runs.paths["sft"], runs.paths["ppo"], prompts=runs.prompts, judge=length_of, max_new_tokens=5,
                     temperature=0.8)
    gaps = [len(record["answers"]["sft"]) - len(record["answers"]["ppo"]) for record in found.records]
    assert found.metrics["length_difference"] == pytest.approx(np.mean(gaps))
    assert found.metrics["longer"] == pytest.approx(np.mean([gap > 0 for gap in gaps]))
    assert found.metrics["ties"] == pytest.approx(np.mean([gap == 0 for gap in gaps]))
    assert max(gaps) > 0 > min(gaps)
    assert {each.metric: each.higher_is_better for each in found.measures} == {
        "win_rate": True, "ties": None, "score_difference": True, "length_difference": None, "longer": None,
        "cut_sft": False, "cut_ppo": False}
    prompts = [record["prompt"] for record in found.records]
    answers = complete(runs.paths["ppo"], prompts, max_new_tokens=5, temperature=0.8)
    assert [record["answers"]["ppo"] for record in found.records] == [one.text for one in answers]
    ends = [one.finish_reason for one in answers]
    assert found.metrics["cut_ppo"] == pytest.approx(np.mean([end == "length" for end in ends])) and "length" in ends


def never(texts: list[str]) -> list[float]:
    raise AssertionError("nothing may be answered before the options are known to be good")


def test_what_is_wrong_is_said_before_the_work(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [runs.paths["base"], runs.paths["sft"]]
    options = {"prompts": runs.prompts, "judge": never}
    with pytest.raises(ConfigError, match=r"cannot write .*absent"):
        win_rate(*pair, output=str(tmp_path / "absent" / "o.json"), **options)
    with pytest.raises(ConfigError, match=r"must differ, got .* twice"):
        win_rate(pair[0], pair[0], **options)
    with pytest.raises(ConfigError, match=r"win_rate=\('.*base.*',\)"):
        win_rate(pair[0], **options)
    config = igf.evaluate.EvaluateConfig(win_rate=tuple(pair), comparisons="c.jsonl")
    with pytest.raises(ConfigError, match="options stand in the EvaluateConfig"):
        win_rate(config, judge=never)
    long = write_jsonl(tmp_path / "long.jsonl", [{"prompt": "short"}, {"prompt": "long " * 300}])
    with pytest.raises(DataError, match=r"long\.jsonl:2: win_rate: a prompt must be shorter than the context"):
        win_rate(*pair, prompts=str(long), judge=never)

    def nothing(*_: Any) -> None:
        raise AssertionError("measured before all checkpoints were looked at")

    monkeypatch.setattr(sys.modules["instructgpt_fast.evaluate.alignment_tax"], "measure", nothing)
    for wrong, message in (("absent", "must be a checkpoint"), (runs.reward, "must hold a language model")):
        with pytest.raises(CheckpointError, match=message):
            alignment_tax([pair[0], wrong], data=str(runs.folder))
    for option in ("output", "records"):
        with pytest.raises(ConfigError, match=r"cannot write .*absent"):
            alignment_tax(pair, data=str(runs.folder), **{option: str(tmp_path / "absent" / "o.json")})
    with pytest.raises(ConfigError, match="must be a list, got 'runs/a'"):
        alignment_tax("runs/a", data=str(runs.folder))


def test_tokens_of_two_tokenizers_do_not_compare(runs: Runs, tmp_path: Path) -> None:
    other = Tokenizer.train([" ".join(SENTENCES)], 290)
    model = random_gpt(GPTConfig(other.vocab_size, n_positions=256, n_layer=1, n_head=2, d_model=32), seed=0)
    path = str(save_checkpoint(tmp_path / "sft", model=model, tokenizer=other, prompt_format="raw", stage="s"))
    write_jsonl(tmp_path / "text.jsonl", [{"text": text} for text in SENTENCES[:8]])
    (tmp_path / "text.toml").write_text('kind = "perplexity"\ndata = "text.jsonl"\n', encoding="utf-8")
    with pytest.warns(UserWarning, match="different tokenizers"):
        tax = alignment_tax([runs.paths["sft"], path], tasks=[str(tmp_path / "text.toml")])
    assert tax.names == (runs.paths["sft"], path)  # two runs of one name
    told = {row.metric: row.differences[1] for row in tax.rows}
    assert told["loss"] is None and told["perplexity"] is None
    assert told["bits_per_byte"] is not None and told["bits_per_byte"].interval is not None
    rows = {row.metric: row for row in tax.rows}
    assert rows["perplexity"].verdict(1) == "" and rows["bits_per_byte"].verdict(1) != ""


def test_what_counts_as_a_judgment(tmp_path: Path) -> None:
    """Labels of one prompt belong together however its keys are ordered; those without both checkpoints say nothing."""
    turns = [{"role": "user", "content": "x"}], [{"content": "x", "role": "user"}]
    both, alone = {"ranks": [1, 2], "completions": ["a", "b"]}, {"ranks": [1, 2], "completions": ["a", "c"]}
    rated = [{"overall": 1}, {"overall": 5}]
    path = str(write_jsonl(tmp_path / "c.jsonl", [
        {"prompt": turns[0], **both, "checkpoints": ["sft", "ppo"], "ratings": [{"overall": 6}, {"overall": 4}]},
        {"prompt": turns[1], **both, "checkpoints": ["ppo", "sft"]},
        {"prompt": "y", **alone, "checkpoints": ["sft", "other"], "ratings": rated},
    ]))
    found = win_rate("runs/sft", "runs/ppo", comparisons=path)
    first, = (measure for measure in found.measures if measure.metric == "win_rate")
    assert len(first.items) == 1 and first.items[0].tolist() == [1.0, 2.0]
    assert found.metrics["overall_sft"] == 6.0
    assert win_rate("runs/sft", "runs/ppo", comparisons=path, limit=1).metrics["win_rate"] == 1.0
