"""A completion has the same bits in any company: other rows, chunks, found prefixes, forks, preemption, threads."""

from __future__ import annotations

import dataclasses
import functools
import random

import pytest
import torch

from instructgpt_fast.generate import Completion, Engine, Request, SamplingConfig, default_seeds
from instructgpt_fast.model import GPT

from ..model.reference import SMALL
from .tiny import EOS, Alone, prompts_of, talkative

LONG = dataclasses.replace(SMALL, n_positions=128)
OPTIONS: list[dict] = [
    {}, {"temperature": 0.0}, {"temperature": 0.7, "top_k": 20}, {"top_p": 0.8}, {"repetition_penalty": 1.5},
    {"min_p": 0.05, "temperature": 1.3, "repetition_penalty": 0.8},
]
COMPANIES: dict[str, dict] = {
    "many rows": {"max_rows": 16},
    "few rows": {"max_rows": 3},
    "short chunks": {"max_rows": 8, "prefill_tokens": 5},
    "nothing shared": {"max_rows": 8, "share_prefixes": False},
    "seldom looked at": {"max_rows": 8, "tokens_a_look": 5},
    "short of pages": {"max_rows": 8, "cache_tokens": 208},
    "short of pages, short chunks": {"max_rows": 6, "cache_tokens": 144, "prefill_tokens": 9},
    "short of pages, seldom looked at": {"max_rows": 6, "cache_tokens": 144, "tokens_a_look": 4},
}


@functools.cache
def model_of(kind: str) -> GPT:
    if kind == "bands":
        return talkative(dataclasses.replace(LONG, band_width=5))
    if kind == "wide":
        return talkative(dataclasses.replace(LONG, vocab_size=1031, d_model=96, n_head=3, n_layer=2))
    model = talkative(LONG)
    return model.bfloat16() if kind == "bfloat16" else model


@functools.cache
def requests_of(count: int, seed: int = 0) -> list[Request]:
    """Requests of all kinds: several completions of one prompt, equal beginnings, every option, and all lengths."""
    draw = random.Random(seed)
    beginnings = [prompt * 3 for prompt in prompts_of(3, seed=50, longest=14)]
    found = []
    for i, prompt in enumerate(prompts_of(count, seed=seed, longest=60)):
        if draw.random() < 0.5:
            prompt = (draw.choice(beginnings) + prompt)[:70]
        completions = draw.choice([1, 1, 2, 5])
        sampling = SamplingConfig(max_new_tokens=draw.choice([1, 7, 30]), **draw.choice(OPTIONS))
        found.append(Request(prompt, sampling, count=completions, seeds=default_seeds(i, completions)))
    return found


@functools.cache
def expected_of(kind: str) -> list[list[Completion]]:
    alone = Alone(model_of(kind))
    return [alone.completions(request) for request in requests_of(9)]


@pytest.mark.parametrize("company", COMPANIES)
@pytest.mark.parametrize("kind", ["plain", "bands", "wide", "bfloat16"])
def test_company_changes_no_bit(kind: str, company: str) -> None:
    engine = Engine(model_of(kind), eos_id=EOS, **COMPANIES[company])
    assert engine.run(requests_of(9)) == expected_of(kind)
    stats = engine.stats()
    if "short of pages" in company:
        assert stats.preempted > 0, "the case must be what its name says"
    assert stats.prompt_tokens == sum(len(request.prompt) * request.count for request in requests_of(9))
    assert (stats.shared_prompt_tokens > 0) or company == "nothing shared"


def test_a_second_time_finds_everything_and_gives_the_same() -> None:
    engine = Engine(model_of("plain"), eos_id=EOS, max_rows=8)
    first = engine.run(requests_of(9))
    before = engine.stats()
    assert engine.run(requests_of(9)) == first == expected_of("plain")
    after = engine.stats()
    found = after.shared_prompt_tokens - before.shared_prompt_tokens
    assert found > 0.6 * (after.prompt_tokens - before.prompt_tokens)


def test_threads_change_no_bit() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert Engine(model_of("wide"), eos_id=EOS, max_rows=7).run(requests_of(9)) == expected_of("wide")
    finally:
        torch.set_num_threads(threads)


def test_a_conversation_goes_on_from_what_is_stored() -> None:
    """The second turn begins with the first one's prompt and answer, both of which are found."""
    model, alone = model_of("plain"), Alone(model_of("plain"))
    engine = Engine(model, eos_id=EOS)
    prompt, sampling = prompts_of(1, seed=9, longest=30)[0], SamplingConfig(max_new_tokens=40)
    answer = engine.run([Request(prompt, sampling, seeds=(1,))])[0][0]
    turn = Request(prompt + answer.tokens + [5, 6, 7], sampling, seeds=(2,))
    before = engine.stats().shared_prompt_tokens
    assert engine.run([turn])[0] == alone.completions(turn)
    stored = len(prompt) + len(answer.tokens) - 1
    assert engine.stats().shared_prompt_tokens - before == stored // 16 * 16 > 16
