"""Tasks answered by a tiny model: the exact prompts, what is scored, what is refused, and the command end to end."""

from __future__ import annotations

import functools
import json
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import instructgpt_fast as igf
from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.cli import main
from instructgpt_fast.config import toml_value
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.evaluate import EvaluateConfig, score_sequences
from instructgpt_fast.generate import complete
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer
from python_tests.model.reference import random_gpt
from python_tests.train.material import SENTENCES, write_jsonl

CONTEXT = 256


class Models:
    """One model as a checkpoint of plain text and as one of dialogues, and a reward model."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.train([*SENTENCES, "Q: What is the capital of France?\nA: Paris"] * 2, 320)
        config = GPTConfig(self.tokenizer.vocab_size, n_positions=CONTEXT, n_layer=1, n_head=2, d_model=32)
        self.gpt = random_gpt(config, seed=0)
        with torch.no_grad():  # answers of some length, which differ with their prompts
            self.gpt.wte.weight[self.tokenizer.eos_id] = 0.0
            self.gpt.ln_f.bias.zero_()
        self.judge = ScalarModel.from_gpt(self.gpt)
        self.raw = self.save(folder / "raw", self.gpt, "raw")
        self.dialogue = self.save(folder / "dialogue", self.gpt, "dialogue")
        self.reward = self.save(folder / "reward", self.judge, "dialogue")

    def save(self, path: Path, model: GPT | ScalarModel, prompt_format: Any) -> str:
        return str(save_checkpoint(path, model=model, tokenizer=self.tokenizer, prompt_format=prompt_format, stage="s"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


ITEMS = [{"q": f"What is {word}?", "a": word} for word in ("a cat", "an owl", "the tree", "home", "old")]
PLAIN = {"kind": "generation", "data": "d.jsonl", "prompt": "Q: {q}\nA:", "answers": "a", "metrics": ["f1"],
         "max_new_tokens": 6}


def task(folder: Path, rows: list[dict[str, Any]] | None = None, **keys: Any) -> str:
    write_jsonl(folder / "d.jsonl", ITEMS if rows is None else rows)
    given = {**PLAIN, **keys}
    text = "".join(f"{key} = {toml_value(value)}\n" for key, value in given.items() if value is not None)
    (folder / "task.toml").write_text(text, encoding="utf-8")
    return str(folder / "task.toml")


def records(folder: Path, checkpoint: str, path: str, **options: Any) -> list[dict[str, Any]]:
    igf.evaluate(checkpoint, tasks=[path], records=str(folder / "r.jsonl"), **options)
    return [json.loads(line) for line in (folder / "r.jsonl").read_text(encoding="utf-8").splitlines()]


def prompt_of(folder: Path, models: Models, template: str, row: dict[str, Any], **keys: Any) -> str:
    """The prompt that a template makes of one row."""
    usual = {"prompt": None, "answers": None, "metrics": None, "kind": None, "max_new_tokens": 4}
    path = task(folder, [row], template=template, **{**usual, **keys})
    return str(records(folder, models.raw, path)[0]["prompt"])


@pytest.mark.parametrize(("template", "row", "prompt"), [
    ("translation", {"source": "Bonjour.", "target": "Hello."},
     "Translate the following sentences from French into English.\n\nFrench: Bonjour.\nEnglish:"),
    ("summarisation", {"article": "Long ago.", "summary": "Ago."}, "Long ago.\n\nTL;DR:"),
    ("question_answering", {"title": "T", "context": "B.", "question": "Why?", "answers": {"text": []}},
     "Answer each question using information in the preceding background paragraph. If there is not enough "
     'information provided, answer with "Not in background."\n\nTitle: T\n\nBackground: B.\n\nQ: Why?\n\nA:'),
    ("rewriting", {"original": "She no go.", "rewritten": "She did not go."},
     "Original: She no go.\nStandard American English:"),
    ("classification", {"text": "A fine film.", "label": "positive"},
     "For each snippet of text, label the sentiment of the text as positive or negative.\n\n"
     "Text: A fine film.\nLabel:"),
    ("chat", {"message": "Hi."},
     "The following is a conversation with an AI assistant. The assistant is helpful, creative, clever, and very "
     "friendly.\n\nHuman: Hello, who are you?\nAI: I am an AI created by OpenAI. How can I help you today?\n"
     "Human: Hi.\nAI:"),
])
def test_prompts_as_the_paper_prints_them(
    models: Models, tmp_path: Path, template: str, row: dict[str, Any], prompt: str
) -> None:
    assert prompt_of(tmp_path, models, template, row) == prompt


def test_the_answers_are_those_of_generate(models: Models, tmp_path: Path) -> None:
    """T = 0, cut at the first newline, white space around it left out."""
    found = records(tmp_path, models.raw, task(tmp_path))
    prompts = [f"Q: {row['q']}\nA:" for row in ITEMS]
    assert [each["prompt"] for each in found] == prompts
    plain = complete(models.raw, prompts, temperature=0.0, max_new_tokens=6, stop=["\n"])
    assert [each["answers"] for each in found] == [[one.text.strip()] for one in plain]
    assert [each["finish_reasons"] for each in found] == [[one.finish_reason] for one in plain]
    assert len({each["answers"][0] for each in found}) > 1
    assert [each["references"] for each in found] == [[row["a"]] for row in ITEMS]


def test_a_dialogue_checkpoint_reads_the_same_text_as_one_message(models: Models, tmp_path: Path) -> None:
    found = records(tmp_path, models.dialogue, task(tmp_path))
    message = [[{"role": "user", "content": f"Q: {row['q']}\nA:"}] for row in ITEMS]
    answers = complete(models.dialogue, message, temperature=0.0, max_new_tokens=6, stop=["\n"])
    assert [each["answers"] for each in found] == [[one.text.strip()] for one in answers]


def test_few_shot_prompts_to_the_character(models: Models, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"q": "1?", "a": ["one", "1"]}, {"q": "2?", "a": "two"}])
    keys = {"shots": 2, "shots_data": "t.jsonl", "instruction": "Answer."}
    found = records(tmp_path, models.raw, task(tmp_path, **keys))
    first, second = "Q: 1?\nA: one\n\n", "Q: 2?\nA: two\n\n"
    for each, row in zip(found, ITEMS, strict=True):
        own = f"Q: {row['q']}\nA:"
        assert each["prompt"] in (f"Answer.\n\n{first}{second}{own}", f"Answer.\n\n{second}{first}{own}")
    assert len({each["prompt"].startswith(f"Answer.\n\n{first}") for each in found}) == 2  # drawn anew for each item
    again = records(tmp_path, models.raw, task(tmp_path, **keys), limit=3, batch_size=2)
    assert [each["prompt"] for each in again] == [each["prompt"] for each in found[:3]]
    other = records(tmp_path, models.raw, task(tmp_path, **keys, shots_seed=5))
    assert [each["prompt"] for each in other] != [each["prompt"] for each in found]
    apart = records(tmp_path, models.raw, task(tmp_path, **keys, separator="\n###\n", answer_prefix="\n"), limit=1)
    assert "Answer.\n###\nQ: " in apart[0]["prompt"] and "A:\none\n###\n" in apart[0]["prompt"]


def test_an_item_is_never_its_own_example(models: Models, tmp_path: Path) -> None:
    found = records(tmp_path, models.raw, task(tmp_path, shots=4, shots_data="d.jsonl"))
    for each, row in zip(found, ITEMS, strict=True):
        assert each["prompt"].count(row["q"]) == 1
    with pytest.raises(DataError, match=r"d\.jsonl: task: shots_data must have at least 5 examples .*got 4; lower"):
        igf.evaluate(models.raw, tasks=[task(tmp_path, shots=5, shots_data="d.jsonl")])


def test_an_example_without_an_answer(models: Models, tmp_path: Path) -> None:
    rows = [{"q": "x?", "a": []}, {"q": "y?", "a": []}]
    keys = {"shots": 1, "shots_data": "d.jsonl"}
    with pytest.raises(DataError, match=r"d\.jsonl:2: task: an example must have an answer to show, got none"):
        igf.evaluate(models.raw, tasks=[task(tmp_path, rows, **keys)])
    found = records(tmp_path, models.raw, task(tmp_path, rows, **keys, no_answer="Nobody knows."))
    assert found[0]["prompt"] == "Q: y?\nA: Nobody knows.\n\nQ: x?\nA:"


def test_what_does_not_fit_is_refused_or_loses_its_end(models: Models, tmp_path: Path) -> None:
    text = " ".join(SENTENCES[:40])
    rows = [ITEMS[0] | {"in": {"c": "short"}}, ITEMS[1] | {"in": {"c": text}}]
    keys = {"prompt": "{c}\n\nQ: {q}\nA:", "fields": {"c": "in.c"}}
    words = r"room for max_new_tokens=6 in the context of 256 tokens, got a prompt of \d+ tokens; set shorten"
    with pytest.raises(DataError, match=rf"d\.jsonl:2: task: a prompt must leave {words}"):
        igf.evaluate(models.raw, tasks=[task(tmp_path, rows, **keys)])
    path = task(tmp_path, rows, **keys, shorten="c")
    found = records(tmp_path, models.raw, path)
    assert found[0]["prompt"] == "short\n\nQ: What is a cat?\nA:"
    kept, own = found[1]["prompt"].split("\n\n")
    assert own == "Q: What is an owl?\nA:" and text.startswith(kept)
    size = len(models.tokenizer.encode(found[1]["prompt"]))
    assert CONTEXT - 6 - 4 <= size <= CONTEXT - 6
    assert igf.evaluate(models.raw, tasks=[path]).about["task"]["shortened"] == 1
    with pytest.raises(DataError, match=r"d\.jsonl:1: task: a prompt must leave room"):
        igf.evaluate(models.raw, tasks=[task(tmp_path, [rows[0] | {"q": text}], **keys, shorten="c")])


def test_several_drawn_answers(models: Models, tmp_path: Path) -> None:
    keys = {"n": 3, "temperature": 1.0, "metrics": ["f1", "self_bleu", "distinct_1", "length", "ending"]}
    result = igf.evaluate(models.raw, tasks=[task(tmp_path, **keys)])
    assert [row.metric for row in result.rows] == ["f1", "self_bleu", "distinct_1", "length", "eos_rate", "cut_rate"]
    found = records(tmp_path, models.raw, task(tmp_path, **keys))
    assert all(len(each["answers"]) == 3 for each in found) and len({*found[0]["answers"]}) > 1
    other = records(tmp_path, models.raw, task(tmp_path, **keys, seed=1))
    assert [each["answers"] for each in other] != [each["answers"] for each in found]


def test_an_item_without_a_right_answer(models: Models, tmp_path: Path) -> None:
    rows = [ITEMS[0], {"q": "x", "a": []}]
    with pytest.raises(DataError, match=r"d\.jsonl:2: task: chrf needs at least one right answer, got none"):
        igf.evaluate(models.raw, tasks=[task(tmp_path, rows, metrics=["f1", "chrf"])])


def lengths(texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def test_a_function_judges(models: Models, tmp_path: Path) -> None:
    path = task(tmp_path, metrics=["toxicity", "sentiment"], answers=None)
    result = igf.evaluate(models.raw, tasks=[path], toxicity_scorer=lengths, sentiment_scorer=f"{__name__}:lengths",
                          output=str(tmp_path / "o.json"), records=str(tmp_path / "r.jsonl"))
    sizes = [len(json.loads(line)["answers"][0]) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert result.metrics == {name: pytest.approx(sum(sizes) / 5) for name in ("task/toxicity", "task/sentiment")}
    assert [measure.higher_is_better for measure in result.measures] == [False, True]
    assert json.loads((tmp_path / "o.json").read_text())["options"]["toxicity_scorer"] == f"{__name__}:lengths"


def test_a_judged_item_is_the_mean_of_its_answers(models: Models, tmp_path: Path) -> None:
    path = task(tmp_path, metrics=["toxicity"], answers=None, n=3, temperature=1.0)
    for each in records(tmp_path, models.raw, path, toxicity_scorer=lengths):
        sizes = [len(answer) for answer in each["answers"]]
        assert len(sizes) == 3 and each["toxicity"] == pytest.approx(sum(sizes) / 3)


def test_a_reward_model_judges(models: Models, tmp_path: Path) -> None:
    path = task(tmp_path, metrics=["toxicity"], answers=None)
    found = records(tmp_path, models.raw, path, toxicity_scorer=models.reward)
    tokens = [
        models.tokenizer.encode_example(each["prompt"], each["answers"][0], "dialogue").tokens for each in found
    ]
    expected = score_sequences(models.judge.eval(), tokens).tolist()
    assert [each["toxicity"] for each in found] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("scorer", "error", "words"), [
    (None, ConfigError, r"task\.toml: the metric toxicity needs a scorer, got none; pass --toxicity-scorer"),
    ("no.such_module:score", ConfigError, "got 'no.such_module:score', which cannot be imported"),
    (".relative:score", ConfigError, "got '.relative:score', which cannot be imported"),
    ("json:absent", ConfigError, "got 'json:absent', which cannot be imported"),
    ("sys:version", ConfigError, "must name a function, got 'sys:version', which is str"),
    ("runs/absent", ConfigError, "module:function or a reward model's checkpoint, got 'runs/absent', which is no path"),
    (lambda texts: None, DataError, "toxicity_scorer must return a list of numbers, but it raised TypeError"),
    (lambda texts: {}["x"], DataError, "toxicity_scorer must return a list of numbers, but it raised KeyError: 'x'"),
    (lambda texts: [1.0], DataError, "toxicity_scorer must return one number a text, got 1 for 5 texts"),
    (lambda texts: ["x"] * 5, DataError, "toxicity_scorer must return numbers"),
    (lambda texts: [float("nan")] * 5, DataError, "toxicity_scorer must return finite numbers, got nan"),
])
def test_scorers_that_cannot_be(
    models: Models, tmp_path: Path, scorer: Any, error: type[Exception], words: str
) -> None:
    path = task(tmp_path, metrics=["toxicity"], answers=None)
    with pytest.raises(error, match=words):
        igf.evaluate(models.raw, tasks=[path], toxicity_scorer=scorer)


def test_a_broken_reward_model_is_no_judge(models: Models, tmp_path: Path) -> None:
    broken = ScalarModel(models.judge.config)
    with torch.no_grad():
        broken.head.weight.fill_(float("nan"))
    path = save_checkpoint(
        tmp_path / "broken", model=broken, tokenizer=models.tokenizer, prompt_format="dialogue", stage="reward")
    with pytest.raises(DataError, match="toxicity_scorer must return finite numbers, got nan"):
        igf.evaluate(models.raw, tasks=[task(tmp_path, metrics=["toxicity"], answers=None)], toxicity_scorer=str(path))


def test_a_language_model_is_no_judge_and_a_reward_model_gives_no_answers(models: Models, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"toxicity_scorer must be .* a reward model, got .*, a language model"):
        igf.evaluate(models.raw, tasks=[task(tmp_path, metrics=["toxicity"])], toxicity_scorer=models.raw)
    with pytest.raises(CheckpointError, match=r"task: .* must hold a language model, got a reward model"):
        igf.evaluate(models.reward, tasks=[task(tmp_path)])


def test_a_task_of_ones_own_by_the_command(
    models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a temporary folder: TOML and jsonl, results as a table, as JSON and item by item."""
    judge = ModuleType("judge_of_ones_own")
    judge.score = lengths  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "judge_of_ones_own", judge)
    path = task(tmp_path, metrics=["exact_match", "f1", "bleu", "chrf", "rouge_l", "toxicity", "ending"], name="mine")
    monkeypatch.chdir(tmp_path)
    status = main([
        "evaluate", "--checkpoint", models.raw, "--tasks", "task.toml", "--output", "out.json", "--records", "r.jsonl",
        "--toxicity-scorer", "judge_of_ones_own:score", "--batch-size", "3",
    ])
    told = capsys.readouterr()
    assert status == 0, told.err
    lines = told.out.splitlines()
    assert lines[1].split() == ["task", "metric", "value", "95", "%", "over"]
    assert [line.split()[:2] for line in lines[2:]] == [
        ["mine", name] for name in
        ("exact_match", "f1", "bleu", "chrf", "rouge_l", "toxicity", "eos_rate", "cut_rate")
    ]
    stored = json.loads(Path("out.json").read_text(encoding="utf-8"))
    result = igf.evaluate(models.raw, tasks=[path], toxicity_scorer=lengths)
    assert stored["metrics"] == pytest.approx(result.metrics)
    about = stored["tasks"]["mine"]
    assert about["versions"] == {name: metadata.version(name) for name in ("rouge-score", "sacrebleu")}
    assert about["details"]["bleu"]["signature"].startswith("nrefs:1|")
    assert about["sampling"] == {
        "max_new_tokens": 6, "temperature": 0.0, "top_p": 1.0, "seed": 0, "stop": ["\n"],
    }
    rows = [json.loads(line) for line in Path("r.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 5] and {row["task"] for row in rows} == {"mine"}
    assert stored["metrics"]["mine/f1"] == pytest.approx(sum(row["f1"] for row in rows) / 5)
    assert main(["evaluate", "--checkpoint", models.raw, "--tasks", "absent.toml"]) == 2
    assert "cannot read absent.toml" in capsys.readouterr().err


def test_names_and_templates_in_one_evaluation(models: Models, tmp_path: Path) -> None:
    path = task(tmp_path)
    both = write_jsonl(tmp_path / "x.jsonl", [{"article": "A b.", "summary": "b", "text": "A b."}] * 3)
    result = igf.evaluate(models.raw, tasks=[path, "summarisation", "perplexity"], limit=2, data=both)
    assert {row.task for row in result.rows} == {"task", "summarisation", "perplexity"}
    assert result.rows[0].count == 2
    with pytest.raises(ConfigError, match="tasks must have different names, got 'task' twice"):
        (tmp_path / "other").mkdir()
        igf.evaluate(models.raw, tasks=[path, task(tmp_path / "other")])
    with pytest.raises(ConfigError, match="the task translation needs data, got data=None"):
        igf.evaluate(models.raw, tasks=["translation"])


def test_numbers_that_json_cannot_hold(models: Models, tmp_path: Path) -> None:
    path = task(tmp_path, ITEMS[:1], metrics=["self_bleu"])
    igf.evaluate(models.raw, tasks=[path], output=str(tmp_path / "o.json"))
    assert json.loads((tmp_path / "o.json").read_text())["metrics"] == {"task/self_bleu": None}


def test_a_missing_package_is_told_before_the_work(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = task(tmp_path, metrics=["f1", "rouge_l"])
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    monkeypatch.setattr("instructgpt_fast.evaluate.generation.complete", None)
    with pytest.raises(ConfigError, match=r"rouge_score.*pip install 'instructgpt_fast\[eval\]'"):
        igf.evaluate(models.raw, tasks=[path])


def test_options_beside_a_config(models: Models, tmp_path: Path) -> None:
    config = EvaluateConfig(checkpoint=models.raw, tasks=(task(tmp_path, metrics=["toxicity"]),))
    for scorer in (lengths, functools.partial(lengths)):
        assert igf.evaluate(config, toxicity_scorer=scorer).rows[0].metric == "toxicity"
    with pytest.raises(ConfigError, match="options stand in the EvaluateConfig, got limit beside one"):
        igf.evaluate(config, limit=2)


def test_checkpoints_are_compared_item_by_item(models: Models, tmp_path: Path) -> None:
    path = task(tmp_path, metrics=["f1", "bleu"])
    first = igf.evaluate(models.raw, tasks=[path]).measures
    second = igf.evaluate(models.dialogue, tasks=[path]).measures
    for one, other in zip(first, second, strict=True):
        assert one.difference(other).value == pytest.approx(one.value - other.value)
    fewer = igf.evaluate(models.raw, tasks=[path], limit=4).measures
    with pytest.raises(ConfigError, match="both must be one metric of the same items"):
        first[0].difference(fewer[0])
