"""Pretraining: the plan in tokens, windows over documents, tokenizer and shards, learning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.data import prepare
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.model import ScalarModel
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train import PretrainConfig, TrainResult, train
from instructgpt_fast.train.metrics import read_metrics
from instructgpt_fast.train.pretrain import Plan
from instructgpt_fast.train.text import Windows

from .material import Material

TINY = {"model": "tiny", "n_positions": 32, "d_model": 32, "n_layer": 1, "progress": False, "learning_rate": 1e-2}


def plan(length: int = 10, sequences: int = 1000, **options: Any) -> Plan:
    return Plan.of(PretrainConfig(data="d", output_dir="o", **options), length, sequences)


def pretrain(material: Material, run_dir: str, **options: Any) -> TrainResult:
    given = {"data": material.text, "tokenizer": material.tokenizer_path, "output_dir": run_dir, "max_steps": 2}
    return train("pretrain", **(TINY | given | options))


def test_length_by_epochs_tokens_or_steps() -> None:
    batch = {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 2}
    assert plan(**batch, num_train_epochs=2).steps == 200
    assert plan(**batch, num_train_epochs=2, train_tokens=1001).steps == 11, "a started batch is a whole one"
    assert plan(**batch, train_tokens=1001, max_steps=7).steps == 7
    assert plan(**batch, max_steps=7).total_tokens == 700
    assert plan(train_batch_tokens=95, max_steps=1).sequences(0) == 10, "whole sequences, the nearest number"


def test_batch_ramp_is_linear_in_tokens() -> None:
    made = plan(train_batch_tokens=1000, batch_ramp_start=100, batch_ramp_tokens=9000, train_tokens=20_000)
    assert made.sequences(0) == 10
    assert made.sequences(4500) == 55
    assert made.sequences(9000) == made.sequences(10**9) == 100
    sizes, seen = [], 0
    for _ in range(made.steps):
        sizes.append(made.sequences(seen))
        seen += sizes[-1] * 10
    assert seen == made.total_tokens
    assert seen - sizes[-1] * 10 < 20_000 <= seen
    assert sizes == sorted(sizes)


def test_learning_rate_is_gpt3s() -> None:
    """Linear over 375M tokens, cosine to 10 % over 260B, constant afterwards: table and appendix B of the paper."""
    # The plan of 300B tokens is long: its rate alone is looked at.
    made = Plan(PretrainConfig(data="d", output_dir="o", preset="gpt3-175b"), 2048, 300 * 10**9, 0)
    assert made.learning_rate(375_000_000 // 2) == pytest.approx(0.3e-4, rel=1e-5)
    assert made.learning_rate(375_000_000) == pytest.approx(0.6e-4, rel=1e-5)
    assert made.learning_rate(130 * 10**9) == pytest.approx(0.6e-4 * (0.1 + 0.9 / 2), rel=1e-6)
    assert made.learning_rate(260 * 10**9) == made.learning_rate(300 * 10**9) == pytest.approx(0.06e-4)


def test_default_schedule_spans_the_run() -> None:
    made = plan(per_device_train_batch_size=10, max_steps=100, learning_rate=1.0)
    assert made.learning_rate(100) == pytest.approx(0.5, rel=1e-3), "half of the first 2 % of 10,000 tokens"
    assert made.learning_rate(10_000) == pytest.approx(0.1)


def test_windows_hold_documents_joined_by_eos(material: Material, tmp_path: Path) -> None:
    shards = prepare(material.text, tmp_path / "shards", material.tokenizer)
    windows = Windows(shards, 16, seed=3)
    rows = windows.batch(0, len(windows))
    stream = torch.from_numpy(shards[: len(windows) * 16]).view(-1, 16)
    assert sorted(rows.tolist()) == sorted(stream.tolist()), "one pass shows each window once"
    assert rows.tolist() != stream.tolist(), "shuffled"
    assert windows.batch(len(windows), len(windows)).tolist() != rows.tolist(), "another order in the next pass"
    ends = (stream == material.tokenizer.eos_id).nonzero()
    assert any(0 < int(column) < 15 for _, column in ends), "EOS stands between documents inside a window"


def test_no_mask_between_documents(material: Material, run_dir: str) -> None:
    """The second document's tokens are predicted from the first's: its hidden states depend on them."""
    model = material.gpt().eval()
    eos = material.tokenizer.eos_id
    row = torch.tensor([[5, 6, 7, eos, 8, 9]])
    other = torch.tensor([[5, 6, 3, eos, 8, 9]])
    assert not torch.equal(model(row)[0, 4:], model(other)[0, 4:])


def test_learns_and_reports(material: Material, run_dir: str) -> None:
    result = pretrain(
        material, run_dir, eval_data=material.eval_text, max_steps=40, eval_steps=20, logging_steps=1,
        per_device_train_batch_size=4, gradient_accumulation_steps=2,
    )
    records = read_metrics(run_dir)
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[0] == pytest.approx(math.log(material.tokenizer.vocab_size), rel=0.02), "uniform at the start"
    assert losses[-1] < 0.5 * losses[0]
    evaluations = [record for record in records if "eval_loss" in record]
    assert [record["step"] for record in evaluations] == [20, 40]
    assert evaluations[1]["eval_perplexity"] == pytest.approx(math.exp(evaluations[1]["eval_loss"]))
    last = [record for record in records if "loss" in record][-1]
    assert last["num_tokens"] == 40 * 8 * 32
    assert last["tokens_per_second"] > 0
    assert result.metrics["eval_loss"] == evaluations[1]["eval_loss"]
    loaded = load_model(result.checkpoint)
    assert (loaded.prompt_format, loaded.stage) == ("raw", "pretrain")
    assert loaded.tokenizer.fingerprint == material.tokenizer.fingerprint


def test_trains_a_tokenizer_when_none_is_given(material: Material, run_dir: str) -> None:
    result = pretrain(material, run_dir, tokenizer=None, vocab_size=280)
    assert load_model(result.checkpoint).tokenizer.vocab_size == 280
    again = pretrain(material, run_dir, tokenizer=None, vocab_size=270, overwrite_output_dir=True)
    assert load_model(again.checkpoint).tokenizer.vocab_size == 270


def test_an_unknown_model_is_refused_before_a_tokenizer_is_trained(
    material: Material, run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import instructgpt_fast.train.pretrain as stage

    monkeypatch.setattr(stage, "open_tokenizer", lambda *_, **__: pytest.fail("trained a tokenizer first"))
    with pytest.raises(ConfigError, match="tinyy"):
        pretrain(material, run_dir, model="tinyy")


def test_shards_bring_their_tokenizer_or_ask_for_it(material: Material, run_dir: str, tmp_path: Path) -> None:
    prepare(material.text, tmp_path / "shards", material.tokenizer)
    with pytest.raises(ConfigError, match="shards need the tokenizer that made them"):
        pretrain(material, run_dir, data=str(tmp_path / "shards"), tokenizer=None)
    material.tokenizer.save(tmp_path / "shards")
    result = pretrain(material, run_dir, data=str(tmp_path / "shards"), tokenizer=None)
    assert load_model(result.checkpoint).tokenizer.fingerprint == material.tokenizer.fingerprint


def test_shards_of_another_tokenizer_are_refused(material: Material, run_dir: str, tmp_path: Path) -> None:
    prepare(material.text, tmp_path / "shards", Tokenizer.train(["abc abc abd"], 262))
    with pytest.raises(DataError, match="made with the tokenizer in use"):
        pretrain(material, run_dir, data=str(tmp_path / "shards"))


def test_continues_from_a_checkpoint(material: Material, base: str, run_dir: str) -> None:
    result = pretrain(material, run_dir, init=base, tokenizer=None, model="gpt2-124m", n_positions=None, d_model=None,
                      n_layer=None)
    assert load_model(result.checkpoint).model.config.n_layer == 2
    with pytest.raises(ConfigError, match="init brings its own shape and tokenizer"):
        PretrainConfig(data="d", output_dir="o", init=base, n_layer=3)


def test_a_reward_model_cannot_be_pretrained(material: Material, reward_model: str, run_dir: str) -> None:
    assert isinstance(load_model(reward_model).model, ScalarModel)
    with pytest.raises(CheckpointError, match="must hold a language model, got a reward or value model"):
        train("pretrain", data=material.text, init=reward_model, output_dir=run_dir, max_steps=1, progress=False)


def test_too_little_text(material: Material, run_dir: str, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Only this.")
    with pytest.raises(DataError, match="must fill at least one window of 32 tokens"):
        pretrain(material, run_dir, data=str(tmp_path / "short.txt"))


def test_a_bad_line_stops_or_is_counted(
    material: Material, run_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(Path(material.text).read_bytes() + b'{"text": 3}\n')
    lines = len(Path(material.text).read_text().splitlines())
    with pytest.raises(DataError, match=rf"bad\.jsonl:{lines + 1}: .*'text' must be text"):
        pretrain(material, run_dir, data=str(path))
    pretrain(material, run_dir, data=str(path), on_bad_line="skip", progress=True)
    assert "1 lines left out that cannot be read" in capsys.readouterr().err
