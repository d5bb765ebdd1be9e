"""The command `generate`: what it prints for each way of asking, and what it says about wrong ones."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from instructgpt_fast.checkpoint import Loaded, load_model, save_checkpoint
from instructgpt_fast.cli import main
from instructgpt_fast.cli.generate import Generate as GenerateOptions
from instructgpt_fast.generate import FewShot, SamplingConfig, complete, generate
from python_tests.train.material import Material

SHORT = ["--max-new-tokens", 6]


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    material = Material(tmp_path_factory.mktemp("material"))
    return load_model(material.save("talker", material.gpt()))


@pytest.fixture
def told(talker: Loaded, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `generate` on the checkpoint with these words and returns what it printed."""
    def run(*words: object) -> str:
        capsys.readouterr()
        status = main(["generate", "--checkpoint", str(talker.path), *map(str, words)])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    return run


@pytest.fixture
def refused(talker: Loaded, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `generate` with wrong words and returns the one line that says what is wrong."""
    def run(*words: object) -> str:
        capsys.readouterr()
        assert main(["generate", "--checkpoint", str(talker.path), *map(str, words)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        return printed.err

    return run


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    file = tmp_path / "examples.jsonl"
    file.write_text('{"prompt": "Name cat.", "response": "cat"}\n{"prompt": "Name dog.", "completion": "dog"}\n')
    return file


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_several_answers_are_lines(talker: Loaded, told: Any, tmp_path: Path) -> None:
    three = generate(talker, "Name it.", n=3, max_new_tokens=6, seed=2)
    expected = [{"prompt": "Name it.", "response": text} for text in three]
    assert lines(told("--prompt", "Name it.", "--n", 3, "--seed", 2, *SHORT)) == expected
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Name it."}\n{"messages": [{"role": "user", "content": "And?"}]}\n')
    rows = lines(told("--prompts", file, "--n", 3, "--seed", 2, "--batch-size", 2, *SHORT))
    assert rows[:3] == expected
    assert [row["prompt"] for row in rows[3:]] == [[{"role": "user", "content": "And?"}]] * 3


def test_details(talker: Loaded, told: Any) -> None:
    found = complete(talker, "Name it.", max_new_tokens=6, stop_ids=5)
    (row,) = lines(told("--prompt", "Name it.", "--details", "--stop-ids", 5, *SHORT))
    assert row == {
        "prompt": "Name it.", "response": found.text, "tokens": len(found.tokens),
        "logprob": pytest.approx(sum(found.logprobs), abs=1e-6), "finish_reason": found.finish_reason,
    }


def test_stop_and_stream(talker: Loaded, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generate(talker, "Name it.", max_new_tokens=20)
    stop = whole[4:6]
    cut = whole[: whole.index(stop)] + "\n"
    asked = ["--prompt", "Name it.", "--max-new-tokens", 20, "--stop", "never seen", stop]
    assert told(*asked) == cut
    written: list[str] = []
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "write", written.append)
    assert main(["generate", "--checkpoint", str(talker.path), "--stream", *map(str, asked)]) == 0
    assert "".join(written) == cut
    assert len(written) > 2


def test_examples_and_an_instruction(talker: Loaded, told: Any, examples: Path) -> None:
    pairs = [("Name cat.", "cat"), ("Name dog.", "dog")]
    asked = ["--prompt", "Name owl.", "--temperature", 0, *SHORT]
    bare = told(*asked, "--examples", examples)
    assert bare == generate(talker, "Name owl.", examples=pairs, temperature=0, max_new_tokens=6) + "\n"
    few = FewShot(pairs, instruction="One word.")
    both = told(*asked, "--examples", examples, "--instruction", "One word.")
    assert both == generate(talker, "Name owl.", examples=few, temperature=0, max_new_tokens=6) + "\n"
    assert len({bare, both, told(*asked)}) > 1


def test_plain_text_ends_where_the_next_example_would_begin(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that says nothing but new lines."""
    material = Material(tmp_path / "material")
    model, tokenizer = material.gpt(), material.tokenizer
    with torch.no_grad():
        model.ln_f.weight.zero_()
        model.ln_f.bias.fill_(1.0)
        model.wte.weight[tokenizer.encode("\n")] = 1.0
    raw = save_checkpoint(
        tmp_path / "raw", model=model, tokenizer=tokenizer, prompt_format="raw", stage="pretrain"
    )
    asked = ["--checkpoint", raw, "--prompt", "x", "--temperature", 0, "--details", *SHORT]
    found = []
    for words in ([], ["--examples", examples], ["--examples", examples, "--stop", "never seen"]):
        assert main(["generate", *map(str, [*asked, *words])]) == 0
        (row,) = lines(capsys.readouterr().out)
        found.append((row["response"], row["tokens"], row["finish_reason"]))
    assert found == [("\n" * 6, 6, "length"), ("", 2, "stop"), ("\n" * 6, 6, "length")]


def test_beams(talker: Loaded, told: Any) -> None:
    options: dict[str, Any] = {"num_beams": 3, "length_penalty": 2.0, "temperature": 0, "max_new_tokens": 6}
    beams = ["--num-beams", 3, "--length-penalty", 2, "--temperature", 0, *SHORT]
    assert told("--prompt", "Name it.", *beams) == generate(talker, "Name it.", **options) + "\n"
    rows = lines(told("--prompt", "Name it.", "--n", 3, *beams))
    assert [row["response"] for row in rows] == generate(talker, "Name it.", n=3, **options)


def test_the_line_end_of_standard_input_is_no_prompt(
    talker: Loaded, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Name it.\n"))
    assert told(*SHORT) == generate(talker, "Name it.", max_new_tokens=6) + "\n"


@pytest.mark.parametrize(("words", "message"), [
    (["--prompt", "x", "--prompts", "f"], "give prompt or prompts, not both"),
    (["--prompt", "x", "--stream", "--n", 2], "stream shows one answer as it is drawn"),
    (["--prompt", "x", "--n", 0], "n must be a number of at least 1, got 0"),
    (["--prompt", "x", "--num-beams", 2], "temperature must be 0.0, got 1.0"),
    (["--prompt", "x", "--stop", ""], "stop must be at most 16 texts, none empty"),
    (["--prompts", "absent.jsonl"], "absent.jsonl"),
    (["--prompt", "x", "--examples", "absent.jsonl"], "absent.jsonl"),
    (["--prompt", "z " * 300], "a prompt must be shorter than the context"),
])
def test_wrong_input_gives_one_clear_line(refused: Any, words: list[object], message: str) -> None:
    assert message in refused(*words)


def test_an_example_is_one_question(refused: Any, examples: Path) -> None:
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    examples.write_text(examples.read_text() + json.dumps({"messages": turns}) + "\n")
    line = refused("--prompt", "x", "--examples", examples)
    assert f"{examples}:3: examples: an example is one question and its answer, got 3 messages before the" in line
    examples.write_text('{"prompt": "x"}\n')
    assert f"{examples}:1: " in refused("--prompt", "x", "--examples", examples)


def test_the_shell_and_python_have_the_same_defaults() -> None:
    """They stand twice, so that --help need not import torch."""
    told = {field.name: field.default for field in dataclasses.fields(GenerateOptions)}
    for field in dataclasses.fields(SamplingConfig):
        assert told[field.name] == field.default, field.name
