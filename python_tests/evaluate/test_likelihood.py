"""Log-likelihoods against whole logits in float64, their truncation, their windows, and what cannot be scored."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from instructgpt_fast.errors import ConfigError, DataError, TrainingError
from instructgpt_fast.evaluate.likelihood import (
    Likelihood,
    _batches,
    _Input,
    loglikelihoods,
    rolling_loglikelihoods,
    rolling_windows,
)
from instructgpt_fast.model import GPT, rows_before_ends

from ..generate.tiny import EOS, prompts_of
from ..model.reference import SMALL, plain_forward, random_gpt

TOKENIZER = SimpleNamespace(eos_id=EOS)
CONTEXT = SMALL.n_positions


@pytest.fixture(scope="module")
def model() -> GPT:
    return random_gpt()


@torch.no_grad()
def direct(model: GPT, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Each token from its own forward pass in float64, over at most the last CONTEXT tokens before the last one."""
    whole = ((context or [EOS]) + continuation)[-(CONTEXT + 1):]
    hidden = plain_forward(model, torch.tensor([whole[:-1]]))[0, -len(continuation):]
    logprobs = (hidden @ model.lm_weight.double().T).log_softmax(-1)
    wanted = torch.tensor(continuation)
    return float(logprobs.gather(1, wanted[:, None]).sum()), bool((logprobs.argmax(-1) == wanted).all())


def greedy_continuation(model: GPT, context: list[int], count: int) -> list[int]:
    found: list[int] = []
    for _ in range(count):
        hidden = plain_forward(model, torch.tensor([context + found]))[0, -1]
        found.append(int((hidden @ model.lm_weight.double().T).argmax()))
    return found


@pytest.mark.parametrize("batch_size", [1, 7])
def test_equals_the_direct_sum_in_the_order_of_the_requests(model: GPT, batch_size: int) -> None:
    contexts, continuations = prompts_of(12, seed=1), prompts_of(12, seed=2)
    requests = list(zip(contexts, continuations, strict=True))
    requests += [(contexts[0], [token]) for token in (5, 6, 7)]  # one input, three answers
    requests += [([], [4, 5]), ([EOS], [4, 5]), (contexts[3], greedy_continuation(model, contexts[3], 4))]
    found = loglikelihoods(model, TOKENIZER, requests, batch_size=batch_size)
    for one, (context, continuation) in zip(found, requests, strict=True):
        logprob, greedy = direct(model, context, continuation)
        assert one.logprob == pytest.approx(logprob, abs=1e-4)
        assert (one.greedy, one.tokens) == (greedy, len(continuation))
        assert one.per_token == one.logprob / len(continuation)
    assert found[-1].greedy and not all(one.greedy for one in found)
    assert found[-2] == found[-3]  # nothing before the text is EOS before it


@pytest.mark.parametrize(("before", "after"), [(CONTEXT, 1), (CONTEXT - 3, 4), (2 * CONTEXT, 5), (7, CONTEXT)])
def test_too_long_a_context_loses_its_left_end(model: GPT, before: int, after: int) -> None:
    generator = torch.Generator().manual_seed(before)
    context = torch.randint(SMALL.vocab_size, (before,), generator=generator).tolist()
    continuation = torch.randint(SMALL.vocab_size, (after,), generator=generator).tolist()
    found = loglikelihoods(model, TOKENIZER, [(context, continuation)])[0]
    assert found.logprob == pytest.approx(direct(model, context, continuation)[0], abs=1e-4 * after)
    kept = context[-(CONTEXT + 1 - after):]
    assert loglikelihoods(model, TOKENIZER, [(kept, continuation)])[0] == found


def test_requests_that_differ_in_their_last_token_run_once(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    forward = GPT.forward

    def counting(self: GPT, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
        read.append(len(tokens))
        return forward(self, tokens, **options)

    monkeypatch.setattr(GPT, "forward", counting)
    loglikelihoods(model, TOKENIZER, [([1, 2, 4], [token]) for token in range(10)])
    loglikelihoods(model, TOKENIZER, [([1, 2], [4, 5]), ([1, 2, 4], [5]), ([1, 2, 4], [6])])
    assert read == [3, 6]  # how many tokens are judged parts the requests too


def test_batches_hold_tokens_and_begin_with_the_longest() -> None:
    items = [_Input((0,) * length, 1) for length in (3, 9, 1, 10, 4, 4)]
    lengths = [[len(item.tokens) for item in batch] for batch in _batches(items, 10)]
    assert lengths == [[10], [9], [4, 4], [3, 1]]


@pytest.mark.parametrize("overlap", [1, CONTEXT - 8])
def test_documents_in_windows(model: GPT, overlap: int) -> None:
    documents = [*prompts_of(3), [], *prompts_of(2, seed=3, longest=150)]
    documents += [list(range(CONTEXT)), list(range(CONTEXT + 1))]
    found = rolling_loglikelihoods(model, TOKENIZER, documents, overlap=overlap, batch_size=3)
    for document, one in zip(documents, found, strict=True):
        expected = 0.0
        for before, judged in rolling_windows(document, EOS, CONTEXT, overlap):
            expected += direct(model, list(before), list(judged))[0]
        assert one.logprob == pytest.approx(expected, abs=1e-5 * len(document))
        assert one.tokens == len(document)
    assert found[3] == Likelihood(0.0, 0, False)


def test_the_windows_of_the_definition() -> None:
    """The example that lm-eval's own documentation draws: ten tokens, a context of four."""
    windows = [(list(a), list(b)) for a, b in rolling_windows(list(range(10)), -1, 4, 1)]
    assert windows == [([-1], [0, 1, 2, 3]), ([3], [4, 5, 6, 7]), ([5, 6, 7], [8, 9])]
    for length in range(12):
        for overlap in range(1, 5):
            parts = list(rolling_windows(list(range(length)), -1, 4, overlap))
            assert [token for _, judged in parts for token in judged] == list(range(length))
            assert all(len(before) + len(judged) == 5 and len(before) >= overlap for before, judged in parts[1:])


def test_rows_of_what_comes_next() -> None:
    assert rows_before_ends([0, 3, 3, 5], [2, 0, 2]).tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"a count must lie in 0\.\.2, the length of the input, got 3"):
        rows_before_ends([0, 2], [3])


@pytest.mark.parametrize(("request_", "words"), [
    (([1], []), "must have 1 to 48 tokens .* got 0 in request 1"),
    (([1], [2] * 49), "must have 1 to 48 tokens .* got 49 in request 1"),
    (([1], [97]), r"token ids must be in 0\.\.96, got 1\.\.97 in request 1"),
])
def test_requests_that_cannot_be(model: GPT, request_: tuple[list[int], list[int]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        loglikelihoods(model, TOKENIZER, [([1], [2]), request_])


def test_options_that_cannot_be(model: GPT) -> None:
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        loglikelihoods(model, TOKENIZER, [], batch_size=0)
    for overlap in (0, CONTEXT + 1):
        with pytest.raises(ConfigError, match=r"overlap must lie in 1\.\.48"):
            rolling_loglikelihoods(model, TOKENIZER, [], overlap=overlap)


def test_broken_weights_have_no_likelihood() -> None:
    broken = random_gpt()
    with torch.no_grad():
        broken.ln_f.bias[0] = math.nan
    with pytest.raises(TrainingError, match="must be finite, got nan for request 0"):
        loglikelihoods(broken, TOKENIZER, [([1], [2])])
