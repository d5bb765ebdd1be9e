"""Task files that are wrong, each with its message; paths, templates and placeholders of those that are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.config import toml_value
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.evaluate.items import Item, read_items
from instructgpt_fast.evaluate.kinds import KINDS, find_task
from instructgpt_fast.evaluate.prompts import references_of
from instructgpt_fast.evaluate.task_file import Task, template_names

RIGHT = {"kind": "generation", "data": "d.jsonl", "prompt": "Q: {q}\nA:", "answers": "a", "metrics": ["exact_match"]}


def write(folder: Path, keys: dict[str, Any], name: str = "task.toml") -> str:
    path = folder / name
    text = "".join(f"{key} = {toml_value(value)}\n" for key, value in keys.items() if value is not None)
    path.write_text(text, encoding="utf-8")
    return str(path)


def read(folder: Path, **changes: Any) -> Task:
    return find_task(write(folder, {**RIGHT, **changes}), None)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": None}, r"kind must be one of .*generation.*, got nothing; name it, or a template\."),
    ({"kind": "generate"}, r"kind must be one of .*, got 'generate', did you mean 'generation'\?"),
    ({"kind": 3}, r"kind must be one of .*, got 3"),
    ({"data": None}, "a task of kind generation must say data, got nothing; add it"),
    ({"prompt": None}, "a task of kind generation must say prompt, got nothing"),
    ({"prompt": None, "metrics": None}, "must say prompt, metrics, got nothing"),
    ({"data": "a\0b"}, r"data must be a path, got the NUL character in 'a\\x00b'"),
    ({"promt": "x"}, r"unknown key 'promt', did you mean 'prompt'\?"),
    ({"metric": ["f1"]}, r"unknown key 'metric', did you mean 'metrics'\?"),
    ({"zzzz": 1}, r"unknown key 'zzzz'; a task of kind generation has answer_prefix, answers, bleu_tokenize"),
    ({"toxicity_scorer": "os:system"}, "unknown key 'toxicity_scorer'; a task of kind generation has"),
    ({"choices": "c"}, "unknown key 'choices'"),
    ({"prompt": 3}, "prompt must be str, got 3"),
    ({"prompt": "Q: {q"}, r"prompt has braces that do not pair .*, got 'Q: \{q'; write \{\{ for a brace"),
    ({"prompt": "q}"}, "prompt has braces that do not pair"),
    ({"prompt": "{}"}, "prompt: a placeholder is a field's name in braces and nothing else, got text='{}'"),
    ({"prompt": "{q!r}"}, "a placeholder is a field's name in braces and nothing else"),
    ({"prompt": "{q:>10}"}, "a placeholder is a field's name in braces and nothing else"),
    ({"prompt": "{q[0]}"}, "a placeholder is a field's name in braces and nothing else"),
    ({"instruction": "{"}, "instruction has braces that do not pair"),
    ({"metrics": []}, "metrics must name at least one, each once, got metrics=()"),
    ({"metrics": ["f1", "f1"]}, "metrics must name at least one, each once"),
    ({"metrics": ["blue"]}, r"no metric is called 'blue', did you mean 'bleu'\?; there are exact_match"),
    ({"metrics": "f1"}, "metrics must be a list of str, got 'f1'"),
    ({"answers": None}, r"answers must name the fields of right answers .*, got metrics=\['exact_match'\]"),
    ({"answers": 1}, "answers must be str or a list of str, got 1"),
    ({"shots": -1}, "shots must not be negative, got shots=-1"),
    ({"shots": 2}, "shots needs shots_data and answers, and shots_data needs shots, got shots=2"),
    ({"shots_data": "t.jsonl"}, "shots needs shots_data and answers, and shots_data needs shots"),
    ({"shots": 1, "shots_data": "t.jsonl", "answers": None, "metrics": ["length"]}, "shots needs shots_data and"),
    ({"shots": 1.5}, "shots must be int, got 1.5"),
    ({"n": 0}, "n must be at least 1, got n=0"),
    ({"n": 3}, "n answers to a prompt are all the same at temperature 0, got n=3"),
    ({"temperature": -1.0}, "temperature must not be negative, got -1.0"),
    ({"name": "two\nlines"}, r"name must be one printable line, got name='two\\nlines'"),
    ({"temperature": "hot"}, "temperature must be a finite number, got 'hot'"),
    ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
    ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
    ({"stop": ["", "x"]}, "stop must be at most 16 texts, none empty"),
    ({"stop": "\n"}, r"stop must be a list of str, got '\\n'"),
    ({"shorten": "context"}, "shorten must be a placeholder of prompt, got shorten='context'"),
    ({"shorten": "q", "constants": {"q": "x"}}, "shorten must not be a constant"),
    ({"fields": {"q": 1}}, "fields must map names to texts, got fields="),
    ({"constants": {"q": ["x"]}}, "constants must map names to texts, got constants="),
    ({"fields": {"q": "x"}, "constants": {"q": "y"}}, "a placeholder is in fields or in constants, not both, got"),
    ({"fields": "q"}, "fields must be dict, got 'q'"),
    ({"limit": 0}, "limit must be at least 1, got limit=0"),
    ({"template": "translate"}, r"template must be one of .*chat, .*, got 'translate', did you mean 'translation'\?"),
    ({"template": 5}, "template must be one of .*chat, .*, got 5"),
    ({"bleu_tokenize": "moses"}, "bleu_tokenize must be one of '13a', 'char', 'intl', 'none', 'zh', got 'moses'"),
    ({"rouge_stemmer": "yes"}, "rouge_stemmer must be bool, got 'yes'"),
    ({"labels": "positive"}, "labels must be a list of str, got 'positive'"),
    ({"kind": "perplexity", "prompt": None, "answers": None, "metrics": None, "text": "{"}, "text has braces"),
    ({"kind": "perplexity"}, r"unknown key 'prompt'.* a task of kind perplexity has"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/task\.toml: .*{words}"):
        read(tmp_path, **changes)


def test_files_that_are_no_toml_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file"):
        find_task(str(tmp_path / "absent.toml"), None)
    (tmp_path / "broken.toml").write_text("kind = generation", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.toml must be TOML, got a syntax error: .*line 1"):
        find_task(str(tmp_path / "broken.toml"), None)


# What a line of the data lacks: the fields of the item, the options, and the message behind file and line.
LINES: list[tuple[Any, dict[str, Any], str]] = [
    ({"question": "x", "a": "y"}, {}, "an item must have the field 'q', got 'question', 'a'"),
    ({"qq": "x", "a": "y"}, {}, r"an item must have the field 'q', got 'qq', 'a', did you mean 'qq'\?"),
    ({"q": None, "a": "y"}, {}, "the field 'q' must be text or a number, got null"),
    ({"q": ["x"], "a": "y"}, {}, "the field 'q' must be text or a number, got a list"),
    ({"q": True, "a": "y"}, {}, "the field 'q' must be text or a number, got true or false"),
    ({"q": "x"}, {}, "an item must have the field 'a', got 'q'"),
    ({"q": float("nan"), "a": "y"}, {}, "the field 'q' must be text or a number, got nan"),
    ({"q": "x", "a": [1, None]}, {}, "the list 'a' must hold texts or numbers only, got null"),
    ({"q": "x", "a": {"text": "y"}}, {"answers": "a.txt"}, "the field 'a.txt', got 'text', did you mean 'text'"),
    ({"q": "x", "a": "y"}, {"answers": "a.text"}, "must have the field 'a.text', got str"),
    ({"q": "x", "a": "maybe"}, {"labels": ["yes", "no"]}, r"one of the labels \['yes', 'no'\], got 'maybe'"),
]


@pytest.mark.parametrize(("values", "changes", "words"), LINES)
def test_a_wrong_line_is_named(tmp_path: Path, values: Any, changes: dict[str, Any], words: str) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text(json.dumps({"q": "x", "a": "y"}) + "\n\n" + json.dumps(values) + "\n", encoding="utf-8")
    options = read(tmp_path, **changes).options
    item = read_items(options.data)[1]
    with pytest.raises(DataError, match=rf"^{data}:3: task: .*{words}"):
        (options.fill("prompt", item), references_of(options, item))


def test_lines_that_are_no_objects(tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text('{"q": "x"}\n[1]\n{"q": "y"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=rf"^{data}:2: .*must be an object, got a list"):
        read_items(data)
    kept = read_items(data, on_bad_line="skip")
    assert [item.line for item in kept] == [1, 3] and kept.skipped == 1


def test_paths_are_relative_to_the_task_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    monkeypatch.chdir(tmp_path)
    keys = {**RIGHT, "data": "../data/d.jsonl", "shots": 1, "shots_data": "t.jsonl"}
    task = find_task(write(Path("tasks"), keys, "capital_cities.toml"), None)
    assert Path(task.options.data).resolve() == tmp_path / "data" / "d.jsonl"
    assert Path(task.options.shots_data) == tmp_path / "tasks" / "t.jsonl"
    assert task.name == "capital_cities"
    assert read(tmp_path, data="/abs/d.jsonl", name="own").options.data == "/abs/d.jsonl"


def test_what_placeholders_stand_for(tmp_path: Path) -> None:
    options = read(
        tmp_path, prompt="{who} {{{q}}} {deep.er} {number}", fields={"q": "question.text"}, constants={"who": "{q}"},
    ).options
    item = Item({"question": {"text": "why {x}?"}, "deep.er": "dotted", "number": 1.5}, Path("d.jsonl"), 1)
    assert options.fill("prompt", item) == "{q} {why {x}?} dotted 1.5"


def test_a_task_says_what_its_template_does_not(tmp_path: Path) -> None:
    task = find_task(write(tmp_path, {
        "template": "translation", "data": "d.jsonl", "metrics": ["chrf"], "constants": {"source_language": "German"},
    }), None)
    item = Item({"source": "Hallo", "target": "Hello"}, Path("d.jsonl"), 1)
    assert task.options.metrics == ("chrf",)
    assert task.options.fill("instruction", item) == "Translate the following sentences from German into English."


@pytest.mark.parametrize("name", template_names())
def test_every_template_is_a_whole_task(name: str) -> None:
    task = find_task(name, "items.jsonl")
    assert task.name == name and task.options.kind in KINDS
    assert Path(task.options.data) == Path.cwd() / "items.jsonl"


def test_numbers_are_texts_alone_and_in_lists() -> None:
    item = Item({"one": 7, "list": ["five", 5, 0.5]}, Path("d.jsonl"), 1)
    assert item.texts("one") == ["7"] and item.texts("list") == ["five", "5", "0.5"]
