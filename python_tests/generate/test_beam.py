"""Beam search against transformers' generate(num_beams=...), against all completions there are, and against greedy."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from instructgpt_fast.errors import ConfigError, DataError, TrainingError
from instructgpt_fast.generate import Completion, SamplingConfig, beam_search, sample
from instructgpt_fast.generate.pages import PagePool
from instructgpt_fast.model import GPT, GPTConfig
from instructgpt_fast.tokenizer import Tokenizer

from ..model.reference import SMALL, random_gpt, transformers_gpt2

EOS = 3


def ending_gpt(bonus: float, config: GPTConfig = SMALL, seed: int = 0) -> GPT:
    """A random model that gives the end of text a fixed bonus on its logit."""
    model = random_gpt(config, seed)
    with torch.no_grad():
        # The first hidden number is made a constant 5.
        model.ln_f.weight[0] = 0.0
        model.ln_f.bias[0] = 5.0
        model.wte.weight[EOS, 0] = bonus / 5
    return model


def prompts_of(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, SMALL.vocab_size, (n,), generator=generator).tolist() for n in lengths]


def searching(beams: int, **options: Any) -> SamplingConfig:
    return SamplingConfig(num_beams=beams, temperature=0.0, **options)


def transformers_says(
    judge: Any, prompt: list[int], sampling: SamplingConfig, count: int
) -> list[tuple[list[int], float]]:
    """Tokens and score of the best completions, without what transformers fills up with."""
    ending = [EOS, *sampling.stop_ids]
    found = judge.generate(
        torch.tensor([prompt]), num_beams=sampling.num_beams, length_penalty=sampling.length_penalty, do_sample=False,
        early_stopping=False, max_new_tokens=sampling.max_new_tokens, eos_token_id=ending, pad_token_id=0,
        num_return_sequences=count, return_dict_in_generate=True, output_scores=True,
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
    )
    answers = []
    for row, score in zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True):
        tokens = row[len(prompt) :]
        ends = [place for place, token in enumerate(tokens) if token in ending]
        answers.append((tokens[: ends[0] + 1] if ends else tokens, score))
    return answers


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("beams", [2, 3, 4, 5])
def test_equals_transformers(beams: int, length_penalty: float) -> None:
    """Prompts and completions that cross pages, ended in all ways: sequences, their order and their scores."""
    endings = set()
    for bonus, new_tokens, stop_ids in ((-3.0, 7, ()), (2.5, 18, ()), (1.5, 14, (9, 30))):
        model = ending_gpt(bonus, seed=beams)
        judge = transformers_gpt2(model)
        sampling = searching(beams, length_penalty=length_penalty, max_new_tokens=new_tokens, stop_ids=stop_ids)
        prompts = prompts_of(1, 16, 22, seed=beams)
        found = beam_search(model, prompts, sampling, eos_id=EOS, count=beams, batch_size=2 * beams)
        for prompt, several in zip(prompts, found, strict=True):
            expected = transformers_says(judge, prompt, sampling, beams)
            assert [completion.tokens for completion in several] == [tokens for tokens, _ in expected]
            scores = [sum(c.logprobs) / len(c.tokens) ** length_penalty for c in several]
            # Two f32 routes to each of up to 20 log-probabilities.
            assert scores == pytest.approx([score for _, score in expected], abs=1e-4)
            endings |= {(completion.finish_reason, len(completion.tokens)) for completion in several}
    assert {reason for reason, _ in endings} == {"eos", "length"}
    assert len({length for reason, length in endings if reason == "eos"}) > 2


def test_one_beam_is_greedy() -> None:
    model, prompts = ending_gpt(2.0), prompts_of(1, 7, 16, 30)
    greedy = SamplingConfig(temperature=0.0, max_new_tokens=18)
    drawn = sample(model, prompts, greedy, eos_id=EOS)
    for one, (found,) in zip(drawn, beam_search(model, prompts, greedy, eos_id=EOS), strict=True):
        assert (found.tokens, found.finish_reason) == (one.tokens, one.finish_reason)
        assert found.logprobs == pytest.approx(one.logprobs, abs=2e-5)


def test_enough_beams_find_the_best_of_all() -> None:
    """Five tokens, three places: every completion is scored by the whole model, and the best ones come back."""
    config = GPTConfig(vocab_size=5, n_positions=8, n_layer=2, n_head=2, d_model=16)
    model, prompt = ending_gpt(0.5, config, seed=3), [1, 4]
    every = [
        (*open_part, last) for length in (1, 2, 3) for open_part in itertools.product((0, 1, 2, 4), repeat=length - 1)
        for last in ((EOS,) if length < 3 else range(5))
    ]
    scored = sorted(((_logprob(model, prompt, tokens) / len(tokens), tokens) for tokens in every), reverse=True)
    found = beam_search(model, [prompt], searching(80, max_new_tokens=3), eos_id=EOS, count=6)[0]
    assert [tuple(completion.tokens) for completion in found] == [tokens for _, tokens in scored[:6]]


@torch.no_grad()
def _logprob(model: GPT, prompt: list[int], tokens: tuple[int, ...]) -> float:
    whole = torch.tensor([[*prompt, *tokens]])
    logprobs = model.logits(model(whole)).log_softmax(-1)[0, len(prompt) - 1 : -1]
    return float(logprobs.gather(1, torch.tensor(tokens)[:, None]).sum())


def test_a_search_does_not_depend_on_its_neighbours() -> None:
    model, prompts = ending_gpt(2.0), prompts_of(3, 20, 9, 16, 1, 5, 40)
    sampling = searching(3, max_new_tokens=15)
    together = beam_search(model, prompts, sampling, eos_id=EOS, count=3, batch_size=21)
    for place, prompt in enumerate(prompts):
        (alone,) = beam_search(model, [prompt], sampling, eos_id=EOS, count=3, batch_size=1)
        assert [c.tokens for c in alone] == [c.tokens for c in together[place]]


def test_pages_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with the room for one search only, which holds them all at its peak."""
    pools: list[PagePool] = []
    made = PagePool.__init__

    def recording(self: PagePool, *arguments: Any) -> None:
        made(self, *arguments)
        pools.append(self)

    monkeypatch.setattr(PagePool, "__init__", recording)
    model = ending_gpt(1.0)
    beam_search(model, prompts_of(16, 17, 31), searching(4, max_new_tokens=17), eos_id=EOS, batch_size=1)
    (pool,) = pools
    assert pool.free == 1 + 4 * 2, "the longest prompt fills one page, which all share, and each beam needs two more"


def test_where_the_context_is_full() -> None:
    model, prompt = ending_gpt(-5.0), prompts_of(SMALL.n_positions - 3)[0]
    found = beam_search(model, [prompt], searching(2, max_new_tokens=50), eos_id=EOS, count=2)[0]
    assert [(len(c.tokens), c.finish_reason) for c in found] == [(3, "length")] * 2


@pytest.fixture(scope="module")
def talker() -> tuple[GPT, Tokenizer]:
    tokenizer = Tokenizer.train(["the quick brown fox jumps over the lazy dog"] * 4, 290)
    config = GPTConfig(tokenizer.vocab_size, n_positions=64, n_layer=2, n_head=2, d_model=16)
    return random_gpt(config, seed=1), tokenizer


def test_stop_strings_end_beams(talker: tuple[GPT, Tokenizer]) -> None:
    """A search that may go on tells its text; one stopped by a part of that text ends there, and nowhere later."""
    model, tokenizer = talker
    prompt = tokenizer.encode("the fox")

    def search(**options: Any) -> list[Completion]:
        sampling = searching(3, max_new_tokens=16, length_penalty=0.0, **options)
        return beam_search(
            model, [prompt], sampling, eos_id=tokenizer.eos_id, tokenizer=tokenizer, count=3
        )[0]

    free = search()[0]
    assert free.text == tokenizer.decode(free.tokens, skip_special_tokens=True)
    stop = free.text[3:5]
    stopped = search(stop=stop)
    assert all(stop not in completion.text for completion in stopped)
    ended = [completion for completion in stopped if completion.finish_reason == "stop"]
    assert ended
    for completion in ended:
        whole = tokenizer.decode(completion.tokens)
        assert completion.text == whole[: whole.index(stop)]
        assert stop not in tokenizer.decode(completion.tokens[:-1])


@pytest.mark.parametrize(("options", "arguments", "error", "message"), [
    ({"num_beams": 2, "temperature": 0.0}, {"count": 3}, ConfigError, r"n must be in 1..num_beams, got n=3 and num_b"),
    ({"num_beams": 2, "temperature": 0.0}, {"count": 0}, ConfigError, "got n=0"),
    ({"temperature": 0.7}, {}, ConfigError, "draws nothing, so temperature must be 0.0, got 0.7"),
    ({"num_beams": 2, "temperature": 0.0, "stop": ("a",)}, {}, ConfigError, "stop strings need a tokenizer"),
    ({"num_beams": 2, "temperature": 0.0}, {"prompts": [[5], []]}, DataError, "none in prompt 1"),
    ({"num_beams": 2, "temperature": 0.0}, {"prompts": [[5] * 48]}, DataError, "context of 48 tokens, got 48"),
    ({"num_beams": 2, "temperature": 0.0}, {"prompts": [[97]]}, DataError, r"must be in 0..96, got 97..97"),
    ({"num_beams": 2, "temperature": 0.0}, {"batch_size": 0}, ConfigError, "batch_size must be at least 1, got 0"),
])
def test_refused(options: dict[str, Any], arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        beam_search(random_gpt(), arguments.pop("prompts", [[5]]), SamplingConfig(**options), eos_id=EOS, **arguments)


def test_broken_weights_are_found() -> None:
    model = random_gpt()
    with torch.no_grad():
        model.ln_f.bias[3] = float("nan")
    with pytest.raises(TrainingError, match="got NaN after 0 tokens"):
        beam_search(model, [[1, 2]], searching(2), eos_id=EOS)


def test_nothing_to_do() -> None:
    assert beam_search(random_gpt(), [], searching(2), eos_id=EOS) == []
