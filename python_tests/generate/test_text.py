"""Text in, text out, from a checkpoint on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from instructgpt_fast.checkpoint import load_model, save_checkpoint
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.generate import SamplingConfig, generate, sample, stream
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer.train(["the quick brown fox jumps over the lazy dog, 狐狸 🦊"] * 4, 300)
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, n_positions=64, n_layer=2, n_head=2, d_model=16))
    return save_checkpoint(
        tmp_path_factory.mktemp("run") / "checkpoint-1", model=model, tokenizer=tokenizer, prompt_format="dialogue",
        stage="sft",
    )


def test_generate_is_sample_in_words(checkpoint: Path) -> None:
    loaded = load_model(checkpoint)
    assert isinstance(loaded.model, GPT)
    tokens = loaded.tokenizer.encode_prompt("the fox", "dialogue")
    completion = sample(
        loaded.model, [tokens], SamplingConfig(max_new_tokens=20, seed=3), eos_id=loaded.tokenizer.eos_id
    )[0]
    text = generate(checkpoint, "the fox", max_new_tokens=20, seed=3)
    assert text == loaded.tokenizer.decode(completion.tokens, skip_special_tokens=True)
    assert generate(checkpoint.parent, "the fox", max_new_tokens=20, seed=3) == text
    assert generate(loaded, [{"role": "user", "content": "the fox"}], max_new_tokens=20, seed=3) == text


def test_a_list_gives_a_list(checkpoint: Path) -> None:
    several = generate(checkpoint, ["the fox", "a dog"], max_new_tokens=8)
    assert isinstance(several, list)
    assert len(several) == 2
    assert generate(checkpoint, [], max_new_tokens=8) == []


@pytest.mark.parametrize("seed", range(6))
def test_streamed_pieces_join_to_the_text(checkpoint: Path, seed: int) -> None:
    """A random model draws byte tokens that are parts of characters, and ends in their middle."""
    loaded = load_model(checkpoint)
    pieces = list(stream(loaded, "the fox", max_new_tokens=30, seed=seed))
    assert len(pieces) > 3
    assert "".join(pieces) == generate(loaded, "the fox", max_new_tokens=30, seed=seed)


def test_a_stream_can_be_left(checkpoint: Path) -> None:
    pieces = stream(checkpoint, "the fox", max_new_tokens=30)
    assert isinstance(next(pieces), str)
    pieces.close()  # type: ignore[attr-defined]


def test_errors(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown option 'temprature', did you mean 'temperature'"):
        generate(checkpoint, "x", temprature=1.0)
    with pytest.raises(ConfigError, match="top_p must be"):
        generate(checkpoint, "x", top_p=2.0)
    with pytest.raises(DataError, match="context of 64 tokens"):
        generate(checkpoint, "z " * 200)
    with pytest.raises(CheckpointError, match="got nothing"):
        generate(tmp_path / "absent", "x")
    loaded = load_model(checkpoint)
    reward = dataclasses.replace(loaded, model=ScalarModel(loaded.model.config), stage="reward")
    for function in (generate, lambda *a: list(stream(*a))):
        with pytest.raises(CheckpointError, match="must hold a language model, got the scalar model of stage 'reward'"):
            function(reward, "x")
