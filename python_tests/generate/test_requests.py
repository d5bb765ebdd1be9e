"""The engine's face: requests side by side, what ends them, what is told of each token, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.generate import Drawn, Engine, Request, SamplingConfig, default_seeds, sample
from instructgpt_fast.model import Chunk, Decoder
from instructgpt_fast.tokenizer import Tokenizer

from ..model.reference import SMALL, plain_forward, random_gpt
from .test_engine import OPTIONS, one_by_one
from .tiny import EOS, prompts_of, talkative


def test_requests_of_all_kinds_side_by_side() -> None:
    """Rows with options of their own in one batch: each equals the plain loop with these options."""
    model, prompts = talkative(), prompts_of(len(OPTIONS))
    engine = Engine(model, eos_id=EOS, max_rows=4)
    tickets = {}
    for prompt, options in zip(prompts, OPTIONS, strict=True):
        request = Request(prompt, SamplingConfig(max_new_tokens=9, **options), count=2, seeds=[4, 5])
        tickets[engine.submit(request)] = request
    assert engine.busy
    drawn: dict[tuple[int, int], list[Drawn]] = {}
    while engine.busy:
        for token in engine.step():
            drawn.setdefault((token.ticket, token.index), []).append(token)
    for ticket, request in tickets.items():
        for index, seed in enumerate((4, 5)):
            expected = one_by_one(model, list(request.prompt), seed, request.sampling)
            tokens = drawn[ticket, index]
            assert [token.token for token in tokens] == expected.tokens
            assert [token.finish_reason for token in tokens] == [None] * (len(tokens) - 1) + [expected.finish_reason]
    assert engine.step() == []


def test_stop_ids_end_as_the_end_of_text_does() -> None:
    model, prompt = talkative(), prompts_of(1)[0]
    whole = sample(model, [prompt], SamplingConfig(max_new_tokens=12, seed=5), eos_id=10**6)[0]
    assert (len(whole.tokens), whole.finish_reason) == (12, "length")
    stop = whole.tokens[4]
    cut = sample(model, [prompt], SamplingConfig(max_new_tokens=12, seed=5, stop_ids=(96, stop)), eos_id=10**6)[0]
    end = whole.tokens.index(stop) + 1
    assert (cut.tokens, cut.logprobs) == (whole.tokens[:end], whole.logprobs[:end])
    assert cut.finish_reason == "eos"


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"temperature": 0.6, "repetition_penalty": 1.7}],
                         ids=str)
def test_alternatives_are_the_likeliest_tokens(options: dict) -> None:
    model, prompt = talkative(), prompts_of(4)[3]
    sampling = SamplingConfig(max_new_tokens=10, top_k=3, **options)
    request = Request(prompt, sampling, seeds=(3,), top_logprobs=5)
    beside = Request(prompts_of(9)[8], SamplingConfig(max_new_tokens=10), top_logprobs=0)
    engine = Engine(model, eos_id=10**6, tokens_a_look=4)
    (completion,), (plain,) = engine.run([request, beside])
    assert plain.alternatives == ()
    tokens = list(prompt)
    for token, logprob, alternatives in zip(
        completion.tokens, completion.logprobs, completion.alternatives, strict=True
    ):
        with torch.no_grad():
            scores = model.logits(plain_forward(model, torch.tensor([tokens]), torch.float32)[:, -1])[0]
        seen = torch.tensor(sorted(set(tokens)))
        penalty = sampling.repetition_penalty
        scores[seen] = torch.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
        expected = (scores / (sampling.temperature or 1.0)).log_softmax(-1).topk(5)
        assert [id_ for id_, _ in alternatives] == expected.indices.tolist()
        # As above: two f32 routes to a log-probability.
        assert [x for _, x in alternatives] == pytest.approx(expected.values.tolist(), abs=3e-5)
        assert dict(alternatives).get(token, logprob) == logprob
        tokens.append(token)


def test_text_comes_in_pieces_and_ends_before_a_stop_string() -> None:
    tokenizer = Tokenizer.train(["the quick brown fox jumps over the lazy dog"] * 4, 280)
    model = talkative(dataclasses.replace(SMALL, vocab_size=tokenizer.vocab_size))
    whole = sample(
        model, [[5, 6]], SamplingConfig(max_new_tokens=40, seed=2), eos_id=tokenizer.eos_id, tokenizer=tokenizer
    )[0]
    assert whole.text == tokenizer.decode(whole.tokens, skip_special_tokens=True)
    stop = whole.text[7:9]
    assert stop not in whole.text[:8]
    sampling = SamplingConfig(max_new_tokens=40, stop=("not there", stop))
    engine = Engine(model, eos_id=tokenizer.eos_id, tokenizer=tokenizer, tokens_a_look=3)
    ticket = engine.submit(Request([5, 6], sampling, seeds=default_seeds(2, 1)))
    drawn = []
    while engine.busy:
        drawn += engine.step()
    assert {token.ticket for token in drawn} == {ticket}
    assert "".join(token.text for token in drawn) == whole.text[:7]
    assert drawn[-1].finish_reason == "stop"
    assert [token.token for token in drawn] == whole.tokens[: len(drawn)]
    assert stop in tokenizer.decode(whole.tokens[: len(drawn)])


def test_one_prompt_many_times_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    store = Decoder.store

    def recording(self: Decoder, chunks: list[Chunk]) -> None:
        lengths.extend(len(chunk.tokens) for chunk in chunks)
        store(self, chunks)

    monkeypatch.setattr(Decoder, "store", recording)
    model, prompt = talkative(), [7] * 19
    sampling = SamplingConfig(max_new_tokens=5)
    found = sample(model, [prompt] * 6 + [[8] * 9], sampling, eos_id=EOS, seeds=range(7))
    assert lengths == [18, 8], "the last token is run by the step that draws the next"
    for seed, completion in enumerate(found[:6]):
        assert completion.tokens == one_by_one(model, prompt, seed, sampling).tokens


def bad_requests() -> Iterator[tuple[Request, type[Exception], str]]:
    yield Request([]), DataError, "engine: a prompt must have at least one token, got none in the prompt"
    yield Request([5] * 48), DataError, "context of 48 tokens, got 48 in the prompt"
    text, tensor = cast(Any, "abc"), cast(Any, torch.tensor([5]))
    yield Request(text), DataError, "a prompt must be a list of token ids, got str in the prompt"
    yield Request(tensor), DataError, "a list of token ids, got Tensor"
    yield Request([5], SamplingConfig(max_new_tokens=9), seeds=cast(Any, [1.5])), ConfigError, "integers in .*, got 1.5"
    yield Request([97]), DataError, r"token ids must be in 0..96, got 97"
    yield Request([5] * 10, SamplingConfig(max_new_tokens=30)), DataError, "cache of 32 tokens, got 10 and up to 30"
    yield Request([5], SamplingConfig(max_new_tokens=9, stop="x")), ConfigError, "stop strings need a tokenizer"
    beams = SamplingConfig(max_new_tokens=9, temperature=0.0, num_beams=2)
    yield Request([5], beams), ConfigError, "num_beams must be 1, got 2"
    yield Request([5], SamplingConfig(max_new_tokens=9), count=0), ConfigError, "count must be at least 1"
    yield Request([5], SamplingConfig(max_new_tokens=9), top_logprobs=-1), ConfigError, "top_logprobs at least 0"
    yield Request([5], SamplingConfig(max_new_tokens=9), count=2, seeds=[1]), ConfigError, "engine: there must be one"


@pytest.mark.parametrize(("bad", "error", "message"), list(bad_requests()))
def test_a_bad_request_is_refused_and_leaves_the_others(bad: Request, error: type[Exception], message: str) -> None:
    engine = Engine(talkative(), eos_id=EOS, cache_tokens=32)
    good = Request([5], SamplingConfig(max_new_tokens=9), seeds=(1,))
    ticket = engine.submit(good)
    with pytest.raises(error, match=message):
        engine.submit(bad)
    assert {token.ticket for _ in range(9) for token in engine.step()} == {ticket}
    assert not engine.busy


@pytest.mark.parametrize("option", ["max_rows", "cache_tokens", "prefill_tokens", "tokens_a_look"])
def test_bad_engine_options(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be at least 1, got 0"):
        Engine(random_gpt(), eos_id=EOS, **{option: 0})


def test_a_tokenizer_of_another_vocabulary_is_refused() -> None:
    """It would fail at the first token that it does not know, in the middle of everybody's answers."""
    tokenizer = Tokenizer.train(["the quick brown fox"], 280)
    with pytest.raises(ConfigError, match=f"got {tokenizer.vocab_size} tokens for a vocabulary of 97"):
        Engine(random_gpt(), eos_id=EOS, tokenizer=tokenizer)


def test_an_engine_is_used_by_one_caller_for_one_model() -> None:
    model = talkative()
    engine = Engine(model, eos_id=EOS)
    engine.submit(Request([5, 6]))
    for call in (lambda: engine.run([]), engine.weights_changed):
        with pytest.raises(ConfigError, match="needs an engine without requests under way"):
            call()
    with pytest.raises(ConfigError, match="same model and eos_id, got one with eos_id 3 for 4"):
        sample(model, [[5]], SamplingConfig(), eos_id=4, engine=engine)
    with pytest.raises(ConfigError, match="of another model"):
        sample(talkative(), [[5]], SamplingConfig(), eos_id=EOS, engine=engine)


def test_changed_weights_are_used_and_old_prefixes_forgotten() -> None:
    model, other = talkative(seed=0), talkative(seed=1)
    prompt, sampling = [5] * 33, SamplingConfig(max_new_tokens=6)
    engine = Engine(model, eos_id=EOS)
    old = sample(model, [prompt], sampling, eos_id=EOS, engine=engine)
    model.load_state_dict(other.state_dict())
    engine.weights_changed()
    new = sample(model, [prompt], sampling, eos_id=EOS, engine=engine)
    assert new == sample(other, [prompt], sampling, eos_id=EOS) != old
    # Weights that moved to other memory, as when a module is given new parameters.
    model.wte.weight = torch.nn.Parameter(model.wte.weight.detach().flip(0))
    engine.weights_changed()
    assert sample(model, [prompt], sampling, eos_id=EOS, engine=engine) == sample(model, [prompt], sampling, eos_id=EOS)
