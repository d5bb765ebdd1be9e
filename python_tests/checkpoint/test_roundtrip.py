"""What is saved comes back bit for bit: models, averages, optimizers, counters, random states."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from instructgpt_fast import checkpoint
from instructgpt_fast.checkpoint import TrainerState, load_model, load_trainer, save_checkpoint
from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.model import GPT, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer

from ..accuracy import same_bits
from .small_run import SmallRun, config, tokenizer


def same(first: SmallRun, second: SmallRun) -> bool:
    ours, theirs = first.tensors(), second.tensors()
    return ours.keys() == theirs.keys() and all(same_bits(ours[name].detach(), theirs[name].detach()) for name in ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_is_the_run_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    run = SmallRun(0, dtype)
    run.train(3)
    path = run.save(tmp_path / "checkpoint-000003")
    run.train(3)
    resumed = SmallRun(1, dtype)
    assert not same(run, resumed)
    resumed.counters = load_trainer(path, resumed.modules, resumed.optimizers)
    assert resumed.counters["step"] == 3
    resumed.train(3)
    assert same(run, resumed)
    assert run.counters == resumed.counters


def test_every_generator_continues(tmp_path: Path) -> None:
    run = SmallRun(0)
    random.gauss(0, 1)  # leaves a second normal number in store, in both libraries
    np.random.standard_normal()
    path = run.save(tmp_path / "checkpoint-1")
    drawn = [torch.rand(3).tolist(), np.random.rand(3).tolist(), np.random.standard_normal(), random.gauss(0, 1)]
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    load_trainer(path, run.modules, run.optimizers)
    assert [
        torch.rand(3).tolist(), np.random.rand(3).tolist(), np.random.standard_normal(), random.gauss(0, 1)
    ] == drawn


@pytest.mark.parametrize("kind", [GPT, ScalarModel])
def test_a_model_comes_back(tmp_path: Path, kind: type) -> None:
    torch.manual_seed(0)
    model = kind(config(band_width=4, residual_dropout=0.1))
    if kind is ScalarModel:
        model.bias_shift.fill_(-0.3)
    save_checkpoint(
        tmp_path / "run" / "checkpoint-000010", model=model, tokenizer=tokenizer(), prompt_format="raw", stage="sft"
    )
    before = torch.get_rng_state()
    loaded = load_model(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before), "loading draws no random numbers"
    assert type(loaded.model) is kind
    assert not loaded.model.training
    assert (loaded.prompt_format, loaded.stage, loaded.path.name) == ("raw", "sft", "checkpoint-000010")
    assert loaded.model.config == model.config
    assert loaded.tokenizer.fingerprint == tokenizer().fingerprint
    own, stored = model.state_dict(), loaded.model.state_dict()
    assert own.keys() == stored.keys()
    assert all(same_bits(own[name], stored[name]) for name in own)
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())


def test_dtype_on_loading(tmp_path: Path) -> None:
    run = SmallRun(0, torch.bfloat16)
    path = run.save(tmp_path / "checkpoint-1")
    assert load_model(path).model.lm_weight.dtype == torch.bfloat16
    wide = load_model(path, dtype=torch.float32).model
    assert same_bits(wide.lm_weight.detach(), run.policy.lm_weight.detach().float())


def test_averaged_weights_can_be_published(tmp_path: Path) -> None:
    run = SmallRun(0)
    run.train(3)
    average = run.optimizers["policy"].ema_state_dict()
    path = run.save(tmp_path / "checkpoint-3", weights=average)
    published = load_model(path).model.state_dict()
    assert all(same_bits(published[name], average[name]) for name in published)
    resumed = SmallRun(1)
    load_trainer(path, resumed.modules, resumed.optimizers)
    assert same(run, resumed), "training goes on from the weights themselves"


def test_the_saved_model_is_stored_once(tmp_path: Path) -> None:
    path = SmallRun(0).save(tmp_path / "checkpoint-1")
    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert files == {
        "config.json", "manifest.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "trainer/optimizer-policy.safetensors", "trainer/optimizer-value.safetensors", "trainer/state.json",
        "trainer/value.safetensors",
    }


def test_saving_again_replaces(tmp_path: Path) -> None:
    run = SmallRun(0)
    run.save(tmp_path / "checkpoint-1")
    run.train(1)
    path = run.save(tmp_path / "checkpoint-1")
    stored = load_model(path).model.state_dict()
    assert all(same_bits(stored[name], tensor) for name, tensor in run.policy.state_dict().items())
    assert [child.name for child in tmp_path.iterdir()] == ["checkpoint-1"]


def test_no_code_is_ever_read() -> None:
    forbidden = ("pickle", "torch.load", "torch.save", "shelve", "marshal", "eval(", "exec(", "allow_pickle=True")
    folder = Path(checkpoint.__file__).parent
    sources = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    assert len(sources) > 4
    for name, text in sources.items():
        code = text.replace("never pickle", "").replace("model.eval()", "")
        assert not [word for word in forbidden if word in code], name


def test_refusals(tmp_path: Path) -> None:
    run = SmallRun(0)
    path = run.save(tmp_path / "checkpoint-1")
    with pytest.raises(CheckpointError, match=r"modules \['policy', 'value'\], got \['policy'\]"):
        load_trainer(path, {"policy": run.policy}, run.optimizers)
    with pytest.raises(CheckpointError, match=r"h\.1\.attn.* missing|missing.*h\.1\.attn"):
        load_trainer(path, {"policy": GPT(config(n_layer=2)), "value": run.value}, run.optimizers)
    with pytest.raises(CheckpointError, match="configuration and dtype"):
        load_trainer(path, {"policy": run.policy.to(torch.bfloat16), "value": run.value}, run.optimizers)
    model = GPT(config())
    alone = save_checkpoint(
        tmp_path / "checkpoint-2", model=model, tokenizer=tokenizer(), prompt_format="raw", stage="base"
    )
    with pytest.raises(CheckpointError, match="a model only"):
        load_trainer(alone, {}, {})
    with pytest.raises(CheckpointError, match="letters, digits"):
        save_checkpoint(
            tmp_path / "checkpoint-3", model=model, tokenizer=tokenizer(), prompt_format="raw", stage="base",
            trainer=TrainerState({"../value": run.value}),
        )
    other = Tokenizer.train(["a different text altogether, with other words"], 275)
    with pytest.raises(CheckpointError, match="vocabulary must be the tokenizer's"):
        save_checkpoint(tmp_path / "checkpoint-4", model=model, tokenizer=other, prompt_format="raw", stage="base")
    with pytest.raises(CheckpointError, match="share one tokenizer"):
        second = GPT(dataclasses.replace(config(), vocab_size=other.vocab_size))
        save_checkpoint(tmp_path / "checkpoint-5", model=second, tokenizer=other, prompt_format="raw", stage="base")
        checkpoint.require_same_vocabulary(load_model(alone), load_model(tmp_path / "checkpoint-5"))
    checkpoint.require_same_vocabulary(load_model(alone), load_model(path))
