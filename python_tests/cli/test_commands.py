"""Every command from the shell's point of view: from text to a model that talks, in one folder."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.cli import main
from instructgpt_fast.data import TokenShards
from instructgpt_fast.generate import generate
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train.metrics import read_metrics
from python_tests.train.material import Material

QUICK = ["--no-progress", "--learning-rate", "1e-2"]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def talker(material: Material) -> Loaded:
    return load_model(material.save("talker", material.gpt()))


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    status = main([str(word) for word in words])
    told = capsys.readouterr()
    assert status == 0, told.err
    return told.out


def checkpoint_in(text: str) -> str:
    return text.split("checkpoint: ")[1].strip()


def test_from_text_to_a_model_that_answers(
    material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, "tokenizer", "train", "--data", material.text, "--output", tmp_path / "tok", "--vocab-size", 290)
    assert told == f"290 tokens: {tmp_path / 'tok' / 'tokenizer.json'}\n"

    told = run(capsys, "tokenizer", "inspect", "--tokenizer", tmp_path / "tok", "--text", "The cat é")
    assert "vocabulary: 290 tokens" in told
    pieces = [line.split(maxsplit=1) for line in told.splitlines()[4:]]
    tokenizer = Tokenizer.load(tmp_path / "tok")
    assert [int(number) for number, _ in pieces] == tokenizer.encode("The cat é")
    assert f"text: 10 bytes, {len(pieces)} tokens" in told

    told = run(
        capsys, "prepare", "shards", "--data", material.text, "--tokenizer", tmp_path / "tok",
        "--output-dir", tmp_path / "shards",
    )
    assert told.startswith(f"{len(TokenShards(tmp_path / 'shards', tokenizer)):,} tokens in 42 documents")

    told = run(
        capsys, "pretrain", "--data", tmp_path / "shards", "--output-dir", tmp_path / "base", "--model", "tiny",
        "--n-positions", 48, "--d-model", 32, "--max-steps", 20, *QUICK,
    )
    base = checkpoint_in(told)
    assert base == str(tmp_path / "base" / "checkpoint-000020")

    told = run(
        capsys, "sft", "--init", base, "--data", material.demonstrations, "--eval-data", material.eval_demonstrations,
        "--output-dir", tmp_path / "sft", "--num-train-epochs", 6, "--train-batch-size", 8, *QUICK,
    )
    sft = checkpoint_in(told)
    assert "eval_loss: " in told

    told = run(
        capsys, "reward", "--init", sft, "--data", material.comparisons, "--eval-data", material.eval_comparisons,
        "--output-dir", tmp_path / "reward", "--train-batch-size", 6, "--num-train-epochs", 3, *QUICK,
    )
    reward = checkpoint_in(told)

    told = run(capsys, "evaluate", "--checkpoint", sft, "--data", material.eval_text)
    assert "bits_per_byte" in told
    told = run(capsys, "evaluate", "--checkpoint", reward, "--comparisons", material.eval_comparisons)
    assert "accuracy_k4" in told

    asked = ["--checkpoint", sft, "--max-new-tokens", 6, "--temperature", 0]
    told = run(capsys, "generate", *asked, "--prompt", "Name cat and dog.")
    assert told == generate(sft, "Name cat and dog.", max_new_tokens=6, temperature=0) + "\n"


def test_answers_to_a_file_of_prompts(material: Material, talker: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(
        capsys, "generate", "--checkpoint", talker.path, "--prompts", material.eval_demonstrations,
        "--max-new-tokens", 3, "--seed", 4,
    )
    rows = [json.loads(line) for line in told.splitlines()]
    prompts = [json.loads(line)["prompt"] for line in Path(material.eval_demonstrations).read_text().splitlines()]
    assert [row["prompt"] for row in rows] == prompts
    assert [row["response"] for row in rows] == generate(talker, prompts, max_new_tokens=3, seed=4)


def test_prompt_from_standard_input(
    talker: Loaded, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Name it."))
    told = run(capsys, "generate", "--checkpoint", talker.path, "--max-new-tokens", 3)
    assert told == generate(talker, "Name it.", max_new_tokens=3) + "\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    assert main(["generate", "--checkpoint", str(talker.path)]) == 2
    assert "a prompt must not be empty" in capsys.readouterr().err


def test_doctor_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "torch" in run(capsys, "doctor")


def test_a_stage_by_file_and_its_resolved_options(
    material: Material, talker: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that a run saves is a --config that makes the same run again."""
    file = tmp_path / "run.toml"
    file.write_text(
        f'[sft]\ninit = "{talker.path}"\ndata = "{material.demonstrations}"\noutput_dir = "{tmp_path / "one"}"\n'
        'max_steps = 3\ntrain_batch_size = 4\nprogress = false\nlogging_steps = 1\n'
    )
    one = checkpoint_in(run(capsys, "sft", "--config", file))
    resolved = tmp_path / "one" / "resolved.toml"
    two = checkpoint_in(run(capsys, "sft", "--config", resolved, "--output-dir", tmp_path / "two"))
    assert Path(one, "model.safetensors").read_bytes() == Path(two, "model.safetensors").read_bytes()
    losses = [[record["loss"] for record in read_metrics(tmp_path / name)] for name in ("one", "two")]
    assert losses[0] == losses[1]
