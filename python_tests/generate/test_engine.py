"""The decoding engine against the plainest loop there is: the full forward pass for every token, one row at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from instructgpt_fast import ops
from instructgpt_fast.errors import ConfigError, DataError, TrainingError
from instructgpt_fast.generate import Completion, Engine, Request, SamplingConfig, default_seeds, sample
from instructgpt_fast.model import GPT, Decoder

from ..model.reference import SMALL, plain_forward, random_gpt
from .tiny import EOS, prompts_of, talkative

OPTIONS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_k": 20},
    {"top_p": 0.8},
    {"min_p": 0.05, "temperature": 1.3},
    {"repetition_penalty": 1.5},
]


@torch.no_grad()
def one_by_one(model: GPT, prompt: list[int], seed: int, sampling: SamplingConfig) -> Completion:
    """The reference: no cache, no batch."""
    tokens, logprobs = list(prompt), []
    while len(tokens) < len(prompt) + sampling.max_new_tokens and len(tokens) < model.config.n_positions:
        logits = model.logits(plain_forward(model, torch.tensor([tokens]), torch.float32)[:, -1])
        token, logprob = ops.sample_token(
            logits, torch.tensor([seed]), torch.tensor([len(tokens)]), temperature=sampling.temperature,
            top_k=sampling.top_k, top_p=sampling.top_p, min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty, history=torch.tensor([tokens]),
        )
        tokens.append(int(token))
        logprobs.append(float(logprob))
        if tokens[-1] == EOS:
            break
    return Completion(tokens[len(prompt) :], logprobs, "eos" if tokens[-1] == EOS else "length")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_one_by_one(options: dict) -> None:
    model, prompts = talkative(), prompts_of(9)
    sampling = SamplingConfig(max_new_tokens=9, **options)
    seeds = default_seeds(7, len(prompts))
    found = sample(model, prompts, sampling, eos_id=EOS, seeds=seeds, batch_size=4)
    for prompt, seed, completion in zip(prompts, seeds, found, strict=True):
        expected = one_by_one(model, prompt, seed, sampling)
        assert completion.tokens == expected.tokens
        assert completion.finished == expected.finished
        # Two f32 routes to logits of size about 10: some 1e-6 apart each, and a log-softmax over them.
        assert completion.logprobs == pytest.approx(expected.logprobs, abs=2e-5)
    if not options:
        assert {completion.finished for completion in found} == {True, False}, "both ways of ending must be seen"


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.5}], ids=str)
def test_looking_rarely_changes_nothing(options: dict) -> None:
    """On a GPU rows that have ended are worked on until they are noticed: no result is touched by that."""
    model, prompts = talkative(), prompts_of(9)
    prompts.append([5] * (SMALL.n_positions - 2))  # ends where the context is full
    sampling = SamplingConfig(max_new_tokens=9, **options)
    found = []
    for tokens_a_look in (1, 4, 7):
        engine = Engine(model, eos_id=EOS, max_rows=4, tokens_a_look=tokens_a_look)
        found.append(sample(model, prompts, sampling, eos_id=EOS, engine=engine))
    for rarely in found[1:]:
        for once, other in zip(found[0], rarely, strict=True):
            assert (once.tokens, once.finished) == (other.tokens, other.finished)
            # Batches of other sizes: the last digit of a matrix product may differ.
            assert once.logprobs == pytest.approx(other.logprobs, abs=2e-5)
    assert {len(completion.tokens) for completion in found[0]} > {2, 9}


def test_broken_weights_are_found_when_looking_rarely() -> None:
    model = talkative()
    with torch.no_grad():
        model.wte.weight[7] = torch.nan
    engine = Engine(model, eos_id=EOS, tokens_a_look=4)
    with pytest.raises(TrainingError, match="must be numbers, got NaN or infinity after 0 tokens of completion 0"):
        engine.run([Request([1, 2], SamplingConfig(max_new_tokens=9))])
    assert not engine.busy


def test_logprobs_are_those_of_training() -> None:
    """At each drawn token the recorded number equals token_logprobs over the full forward pass."""
    model, prompts = talkative(), prompts_of(6)
    found = sample(model, prompts, SamplingConfig(max_new_tokens=14, temperature=0.8, top_k=30), eos_id=EOS)
    for prompt, completion in zip(prompts, found, strict=True):
        tokens = torch.tensor(prompt + completion.tokens)
        with torch.no_grad():
            hidden = model(tokens[None])[0, len(prompt) - 1 : -1]
            truth, _ = ops.token_logprobs(hidden, model.lm_weight, tokens[len(prompt) :], temperature=0.8)
        # As above.
        torch.testing.assert_close(torch.tensor(completion.logprobs), truth, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_change_no_token(dtype: torch.dtype) -> None:
    model, prompts = talkative().to(dtype), prompts_of(24)
    sampling = SamplingConfig(max_new_tokens=12)
    seeds = default_seeds(1, len(prompts))

    def run(order: list[int], batch_size: int) -> dict[int, list[int]]:
        found = sample(
            model, [prompts[i] for i in order], sampling, eos_id=EOS, seeds=[seeds[i] for i in order],
            batch_size=batch_size,
        )
        return {i: completion.tokens for i, completion in zip(order, found, strict=True)}

    whole = run(list(range(24)), 24)
    runs = [(list(range(24)), 1), (list(reversed(range(24))), 5), (list(range(1, 24, 3)), 8)]
    if dtype == torch.float32:
        for order, batch_size in runs:
            assert run(order, batch_size) == {i: whole[i] for i in order}, (batch_size, len(order))
        return
    # A matrix product in bf16 rounds by its shape, 2^-9 of a logit of size 10: now and then a draw is near enough to
    # a tie to flip, and the rest of that completion with it.
    for order, batch_size in runs:
        again = run(order, batch_size)
        assert sum(again[i] == whole[i] for i in order) >= 0.7 * len(order), (batch_size, len(order))


def test_prompts_join_in_parts() -> None:
    """A prefill bounded to a few tokens takes several prompts one after another, and changes nothing."""
    model, prompts = talkative(), prompts_of(10)
    sampling = SamplingConfig(max_new_tokens=6)
    whole = sample(model, prompts, sampling, eos_id=EOS)
    parts = sample(model, prompts, sampling, eos_id=EOS, engine=Engine(model, eos_id=EOS, prefill_tokens=7))
    assert [c.tokens for c in parts] == [c.tokens for c in whole]


def test_finished_rows_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    step = Decoder.step

    def recording(self: Decoder, tokens: Tensor, *rest: Tensor) -> Tensor:
        sizes.append(len(tokens))
        return step(self, tokens, *rest)

    monkeypatch.setattr(Decoder, "step", recording)
    found = sample(talkative(), prompts_of(12), SamplingConfig(max_new_tokens=15), eos_id=EOS, batch_size=12)
    lengths = [len(completion.tokens) for completion in found]
    assert sum(sizes) == sum(lengths), "every token costs one place in one step"
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2


def test_waiting_prompts_take_the_place_of_finished_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    step = Decoder.step

    def recording(self: Decoder, tokens: Tensor, *rest: Tensor) -> Tensor:
        sizes.append(len(tokens))
        return step(self, tokens, *rest)

    monkeypatch.setattr(Decoder, "step", recording)
    sample(talkative(), prompts_of(40), SamplingConfig(max_new_tokens=15), eos_id=EOS, batch_size=8)
    assert max(sizes) == 8
    # Until the waiting ones run out less than a quarter of the 8 rows is empty.
    assert min(sizes[: len(sizes) // 2]) >= 7


@pytest.mark.parametrize("temperature", [1e-10, 1e10])
@pytest.mark.parametrize("penalty", [1e-10, 1e10])
def test_options_at_their_bounds_leave_numbers(temperature: float, penalty: float) -> None:
    """What is allowed is no reason to say that the weights are broken."""
    model, sampling = talkative(), SamplingConfig(
        max_new_tokens=4, temperature=temperature, repetition_penalty=penalty, top_k=2**31 - 1, top_p=1e-50, min_p=1e-46
    )
    for completion in sample(model, prompts_of(3), sampling, eos_id=EOS):
        assert all(-1e30 < logprob <= 0.0 for logprob in completion.logprobs)


def test_same_seed_same_answer_other_seed_another() -> None:
    model, prompts = talkative(), prompts_of(3)
    first, again = (sample(model, prompts, SamplingConfig(seed=1), eos_id=EOS) for _ in range(2))
    assert first == again
    assert [c.tokens for c in sample(model, prompts, SamplingConfig(seed=2), eos_id=EOS)] != [c.tokens for c in first]
    twins = sample(model, [prompts[0]] * 2, SamplingConfig(), eos_id=EOS)
    assert twins[0].tokens != twins[1].tokens


def test_tokens_come_with_the_model_s_frequencies() -> None:
    model = talkative()
    count = 4000
    found = sample(model, [[5, 6]] * count, SamplingConfig(max_new_tokens=1), eos_id=EOS, batch_size=500)
    with torch.no_grad():
        expected = model.logits(model(torch.tensor([[5, 6]]))[0, -1]).softmax(-1) * count
    seen = torch.bincount(torch.tensor([c.tokens[0] for c in found]), minlength=SMALL.vocab_size)
    often = expected >= 5
    statistic = ((seen - expected) ** 2 / expected)[often].sum().item()
    degrees = int(often.sum()) - 1
    # Pearson's statistic has mean `degrees` and deviation sqrt(2 degrees): five of these.
    assert statistic < degrees + 5 * (2 * degrees) ** 0.5


def test_a_completion_ends_where_the_context_is_full() -> None:
    model = random_gpt()
    prompt = [5] * (SMALL.n_positions - 3)
    completion = sample(model, [prompt, [7]], SamplingConfig(max_new_tokens=10), eos_id=10**6)[0]
    assert len(completion.tokens) == 3
    assert not completion.finished


def test_dropout_is_off_and_the_mode_stays() -> None:
    model = random_gpt(dataclasses.replace(SMALL, residual_dropout=0.4))
    prompts = prompts_of(4)
    answers = [sample(mode, prompts, SamplingConfig(max_new_tokens=8), eos_id=EOS) for mode in (
        model.eval(), model.train())]
    assert answers[0] == answers[1]
    assert model.training


def test_nothing_to_do() -> None:
    assert sample(random_gpt(), [], SamplingConfig(), eos_id=EOS) == []


def bad_calls() -> Iterator[tuple[dict, type[Exception], str]]:
    yield {"prompts": [[1], []]}, DataError, "at least one token, got none in prompt 1"
    yield {"prompts": [[1] * 48]}, DataError, "context of 48 tokens, got 48 in prompt 0"
    yield {"prompts": [[1]], "seeds": [1, 2]}, ConfigError, "one seed a prompt, got 2 for 1"
    yield {"prompts": [[1]], "seeds": [-1]}, ConfigError, r"in \[0, 2\^63\)"
    yield {"prompts": [[1]], "batch_size": 0}, ConfigError, "batch_size must be at least 1"


@pytest.mark.parametrize(("arguments", "error", "message"), list(bad_calls()))
def test_errors(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sample(random_gpt(), sampling=SamplingConfig(), eos_id=EOS, **arguments)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0}, {"temperature": -0.1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1},
        {"repetition_penalty": 0.0},
    ],
)
def test_bad_options(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        SamplingConfig(**options)


def test_broken_weights_are_found() -> None:
    model = random_gpt()
    with torch.no_grad():
        model.ln_f.bias[3] = float("nan")
    with pytest.raises(TrainingError, match="after 0 tokens of completion 0"):
        sample(model, [[1, 2]], SamplingConfig(), eos_id=EOS)

