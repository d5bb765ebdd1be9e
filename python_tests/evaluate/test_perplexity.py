"""Perplexity against a direct sum, the windows' arithmetic, and what cannot be measured."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

from instructgpt_fast.data import prepare
from instructgpt_fast.errors import ConfigError, DataError, TrainingError
from instructgpt_fast.evaluate import joined, perplexity
from instructgpt_fast.evaluate.perplexity import Perplexity, windows
from instructgpt_fast.model import GPT, GPTConfig
from instructgpt_fast.tokenizer import Tokenizer

TEXTS = ["The cat sat.", "Ein Käse für 3 €.", "The dog ran to the cat and the cat ran off."]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS * 2, 280)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> GPT:
    torch.manual_seed(0)
    made = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, n_positions=16, n_layer=1, n_head=2, d_model=16))
    with torch.no_grad():
        made.wte.weight.mul_(20.0)  # far from uniform, so that context matters
    return made


def direct(model: GPT, tokenizer: Tokenizer, stream: list[int], context: int, stride: int) -> tuple[float, int, int]:
    """Token by token: the window that judges it is the first one that reaches it."""
    nats, count, size = 0.0, 0, 0
    for place in range(1, len(stream)):
        if stream[place] == tokenizer.eos_id:
            continue
        begin = 0
        while begin + context <= place:
            begin += stride
        with torch.no_grad():
            hidden = model(torch.tensor([stream[begin:place]]))
            logprobs = model.logits(hidden)[0, -1].double().log_softmax(-1)
        nats -= float(logprobs[stream[place]])
        count, size = count + 1, size + len(tokenizer.bytes_of(stream[place]))
    return nats, count, size


@pytest.mark.parametrize(("context", "stride"), [(16, 8), (16, 1), (16, 15), (7, 3), (2, 1)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_equals_the_direct_sum(model: GPT, tokenizer: Tokenizer, context: int, stride: int, batch_size: int) -> None:
    stream = joined(tokenizer, TEXTS)
    found = perplexity(model, tokenizer, stream, context=context, stride=stride, batch_size=batch_size)
    nats, count, size = direct(model, tokenizer, stream.tolist(), context, stride)
    # float32 logits against their float64 softmax.
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert (found.tokens, found.bytes) == (count, size)


def test_every_byte_of_the_texts_is_judged(model: GPT, tokenizer: Tokenizer) -> None:
    found = perplexity(model, tokenizer, joined(tokenizer, TEXTS))
    assert found.bytes == sum(len(text.encode()) for text in TEXTS)


def test_more_context_is_the_default_half(model: GPT, tokenizer: Tokenizer) -> None:
    stream = joined(tokenizer, TEXTS)
    assert perplexity(model, tokenizer, stream) == perplexity(model, tokenizer, stream, context=16, stride=8)


def test_shards_and_texts_agree(model: GPT, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Shards have EOS behind each document and none before the first, whose first token is not judged."""
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in TEXTS), encoding="utf-8")
    shards = prepare(path, tmp_path / "shards", tokenizer)
    eos, rest = [tokenizer.eos_id], shards[0 : len(shards)].tolist()
    assert joined(tokenizer, TEXTS).tolist() == (eos + rest)[:-1]
    assert perplexity(model, tokenizer, shards) == perplexity(model, tokenizer, rest)


def test_numbers() -> None:
    found = Perplexity(nats=20.0, tokens=10, bytes=40)
    assert found.loss == 2.0
    assert found.perplexity == math.exp(2.0)
    assert found.bits_per_byte == pytest.approx(20.0 / math.log(2) / 40)
    assert Perplexity(nats=1e6, tokens=10, bytes=40).perplexity == math.inf


def test_a_uniform_model_has_the_vocabulary_as_perplexity(tokenizer: Tokenizer) -> None:
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, n_positions=16, n_layer=1, n_head=2, d_model=16))
    with torch.no_grad():
        model.wte.weight.zero_()
    found = perplexity(model, tokenizer, joined(tokenizer, TEXTS))
    assert found.perplexity == pytest.approx(tokenizer.vocab_size, rel=1e-6)


def test_windows_judge_each_token_once() -> None:
    for length in (2, 5, 16, 17, 40):
        for context in (2, 5, 16):
            for stride in {1, context // 2 or 1, context - 1}:
                spans = windows(length, context, stride)
                judged = [place for _, end, first in spans for place in range(first, end)]
                assert judged == list(range(1, length))


def test_the_mode_comes_back(model: GPT, tokenizer: Tokenizer) -> None:
    model.train()
    perplexity(model, tokenizer, joined(tokenizer, TEXTS))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("options", "words"), [
    ({"context": 17}, r"context must lie in 2\.\.16"), ({"context": 1}, r"context must lie in 2\.\.16"),
    ({"stride": 16}, r"stride must lie in 1\.\.15"), ({"stride": 0}, r"stride must lie in 1\.\.15"),
])
def test_windows_that_cannot_be(model: GPT, tokenizer: Tokenizer, options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        perplexity(model, tokenizer, joined(tokenizer, TEXTS), **options)


def test_nothing_to_judge(model: GPT, tokenizer: Tokenizer) -> None:
    for stream in ([], [3], [tokenizer.eos_id] * 5):
        with pytest.raises(DataError, match="must hold at least one token after the first"):
            perplexity(model, tokenizer, stream)


def test_broken_weights_have_no_perplexity(model: GPT, tokenizer: Tokenizer) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.ln_f.bias[0] = math.nan
    with pytest.raises(TrainingError, match="loss must be finite, got nan over"):
        perplexity(broken, tokenizer, joined(tokenizer, TEXTS))
