"""`evaluate` on checkpoints: tasks by their data, tables, files, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import instructgpt_fast as igf
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.evaluate import EvaluateConfig, evaluate, perplexity, read_stream
from instructgpt_fast.evaluate.tasks import TASKS
from instructgpt_fast.model import ScalarModel
from python_tests.train.material import Material


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def base(material: Material) -> str:
    return material.save("base", material.gpt())


@pytest.fixture(scope="module")
def judge(material: Material) -> str:
    return material.save("judge", ScalarModel.from_gpt(material.gpt(seed=1)))


def test_perplexity_of_a_file(material: Material, base: str, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    result = igf.evaluate(base, data=material.eval_text, stride=40, output=str(output))
    stream = read_stream(material.eval_text, material.tokenizer)
    expected = perplexity(material.gpt(), material.tokenizer, stream, stride=40)
    assert result.metrics["perplexity/perplexity"] == pytest.approx(expected.perplexity, rel=1e-5)
    assert result.metrics["perplexity/bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-5)
    stored = json.loads(output.read_text())
    assert stored["metrics"] == result.metrics
    assert stored["checkpoint"] == base
    header, first, *_ = str(result).splitlines()
    assert header.split() == ["task", "metric", "value", "95", "%", "over"]
    assert first.split()[:2] == ["perplexity", "loss"]


def test_accuracy_of_a_reward_model(material: Material, judge: str) -> None:
    result = evaluate(judge, comparisons=material.eval_comparisons)
    assert 0.0 <= result.metrics["reward_accuracy/accuracy"] <= 1.0
    assert {row.metric for row in result.rows} == {
        "accuracy", "accuracy_k4", "margin", "loss", "log_loss", "calibration_error",
    }
    accuracy = result.rows[0]
    assert accuracy.count == 30
    assert accuracy.half_width is not None
    assert "+-" in str(result)


def test_a_result_or_a_config_stands_for_its_checkpoint(material: Material, base: str) -> None:
    by_path = evaluate(base, data=material.eval_text)
    assert evaluate(SimpleNamespace(checkpoint=base), data=material.eval_text) == by_path
    assert evaluate(EvaluateConfig(checkpoint=base, data=material.eval_text)) == by_path


def test_the_wrong_kind_of_model(material: Material, base: str, judge: str) -> None:
    with pytest.raises(CheckpointError, match=r"perplexity: .* must hold a language model, got a reward model"):
        evaluate(judge, data=material.eval_text)
    with pytest.raises(CheckpointError, match=r"reward_accuracy: .* must hold a reward model, got a language model"):
        evaluate(base, comparisons=material.eval_comparisons)


@pytest.mark.parametrize(("options", "words"), [
    ({}, "give tasks, data or comparisons to measure on"),
    ({"tasks": ["perplexty"], "data": "d"}, r"no task is called 'perplexty', did you mean 'perplexity'\?"),
    ({"tasks": ["perplexity"]}, "the task perplexity needs data"),
    ({"tasks": ["reward_accuracy"], "data": "d"}, "the task reward_accuracy needs comparisons"),
    ({"data": "d", "batch_size": 0}, "batch_size must be at least 1"),
    ({"dta": "d"}, r"unknown option 'dta', did you mean 'data'\?"),
])
def test_options_that_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate("somewhere", **options)


def test_no_such_text(base: str) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        evaluate(base, data="absent.txt")


def test_what_would_fail_late_fails_first(
    material: Material, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> None:
        raise AssertionError("a task was run before the files of all were looked for")

    monkeypatch.setitem(TASKS, "perplexity", nothing)
    late = tmp_path / "late.toml"
    late.write_text('kind = "perplexity"\ndata = "absent.jsonl"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"absent\.jsonl: task: data must be a jsonl file, got none there"):
        evaluate(base, tasks=["perplexity", str(late)], data=material.eval_text)
    for kind, wanted in (
        ('template = "code"', "allow_code_execution=True"), ('template = "toxicity"', "needs a scorer, got none"),
    ):
        late.write_text(f'{kind}\ndata = "items.jsonl"\n', encoding="utf-8")
        (tmp_path / "items.jsonl").write_text("{}\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=wanted):
            evaluate(base, tasks=["perplexity", str(late)], data=material.eval_text)
    for option in ("output", "records"):
        with pytest.raises(ConfigError, match=r"cannot write .*absent/r: .*create it first"):
            evaluate(base, tasks=["perplexity"], data=material.eval_text, **{option: str(tmp_path / "absent" / "r")})
