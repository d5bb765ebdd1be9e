"""Requests that come and are dropped at random, in a cache that is too small: no page is lost, no answer changes."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections import Counter

import pytest

from instructgpt_fast.generate import Drawn, Engine, Request, SamplingConfig
from instructgpt_fast.model import GPT, Decoder

from ..model.reference import SMALL
from .tiny import EOS, Alone, prompts_of, talkative

LONG = dataclasses.replace(SMALL, n_positions=96)


@functools.cache
def model_and_reference() -> tuple[GPT, Alone]:
    model = talkative(LONG)
    return model, Alone(model)


def check_pages(engine: Engine) -> None:
    """Every page is free, held by just the rows that name it, or kept and idle; who came first waits in front."""
    pool, schedule = engine._pool, engine._schedule
    held = Counter(page for row in (*schedule.active.rows, *schedule.prefilling) for page in row.pages)
    assert all(pool.holders(page) == held[page] for page in range(engine._cache.pages))
    idle = pool.available - pool.free
    assert pool.free + idle + len(held) == engine._cache.pages
    assert all(not row.pages and not row.stored for row in schedule.waiting)
    stats = engine.stats()
    assert stats.active + stats.prefilling <= stats.rows
    waiting = [(row.ticket, row.index) for row in schedule.waiting]
    assert waiting == sorted(waiting)


def random_request(draw: random.Random, beginnings: list[list[int]]) -> Request:
    prompt = draw.choice(beginnings)[: draw.randint(1, 50)]
    if draw.random() < 0.5:
        prompt = prompt + [draw.randrange(SMALL.vocab_size) for _ in range(draw.randint(1, 10))]
    count = draw.choice([1, 1, 2, 4])
    sampling = SamplingConfig(
        max_new_tokens=draw.choice([1, 3, 20]), temperature=draw.choice([1.0, 0.5]),
        repetition_penalty=draw.choice([1.0, 1.0, 1.4]),
    )
    return Request(prompt, sampling, count=count, seeds=[draw.randrange(2**63) for _ in range(count)])


@pytest.mark.parametrize("seed", range(8))
def test_random_traffic(seed: int) -> None:
    model, alone = model_and_reference()
    draw = random.Random(seed)
    engine = Engine(
        model, eos_id=EOS, max_rows=draw.choice([1, 2, 5, 8]), cache_tokens=16 * draw.randint(5, 10),
        prefill_tokens=draw.choice([3, 20, 1000]), tokens_a_look=draw.choice([1, 1, 4]),
        share_prefixes=draw.random() < 0.8,
    )
    beginnings = [(prompt * 50)[:50] for prompt in prompts_of(3, seed=seed)]
    requests: dict[int, Request] = {}
    cancelled: set[int] = set()
    drawn: dict[tuple[int, int], list[Drawn]] = {}
    for moment in range(80):
        action = draw.random()
        if action < 0.3 and moment < 60:
            request = random_request(draw, beginnings)
            requests[engine.submit(request)] = request
        elif action < 0.36 and requests:
            ticket = draw.choice(list(requests))
            engine.cancel(ticket)
            cancelled.add(ticket)
        for token in engine.step():
            drawn.setdefault((token.ticket, token.index), []).append(token)
        check_pages(engine)
    while engine.busy:
        for token in engine.step():
            drawn.setdefault((token.ticket, token.index), []).append(token)
    check_pages(engine)
    stats = engine.stats()
    assert (stats.waiting, stats.prefilling, stats.active) == (0, 0, 0)
    assert stats.free_pages + stats.cached_pages == stats.pages
    engine.weights_changed()
    assert engine.stats().free_pages == stats.pages
    compare(requests, cancelled, drawn, alone)
    assert stats.drawn_tokens == sum(map(len, drawn.values()))


def compare(
    requests: dict[int, Request], cancelled: set[int], drawn: dict[tuple[int, int], list[Drawn]], alone: Alone
) -> None:
    for ticket, request in requests.items():
        for index, expected in enumerate(alone.completions(request)):
            tokens = drawn.get((ticket, index), [])
            count = len(tokens)
            assert [token.token for token in tokens] == expected.tokens[:count]
            assert [token.logprob for token in tokens] == expected.logprobs[:count]
            reasons = [token.finish_reason for token in tokens]
            whole = count == len(expected.tokens)
            assert whole or ticket in cancelled
            assert reasons == [None] * (count - 1) + [expected.finish_reason if whole else None] * (count > 0)


def test_cancelling_frees_at_once() -> None:
    model, _ = model_and_reference()
    engine = Engine(model, eos_id=10**6, max_rows=4, cache_tokens=256, share_prefixes=False)
    running = engine.submit(Request([5] * 20, SamplingConfig(max_new_tokens=30), count=2))
    engine.step()
    waiting = engine.submit(Request([6] * 20, SamplingConfig(max_new_tokens=30), count=3))
    assert engine.stats().waiting == 3
    assert engine.stats().free_pages == 16 - 3, "two rows share the full page, and each has one of its own"
    engine.cancel(running)
    assert (engine.stats().free_pages, engine.stats().active, engine.stats().waiting) == (16, 0, 3)
    engine.cancel(waiting)
    assert not engine.busy
    engine.cancel(waiting)
    engine.cancel(12345)
    assert engine.step() == []


def test_pages_are_claimed_as_rows_grow() -> None:
    model, _ = model_and_reference()
    engine = Engine(model, eos_id=10**6, max_rows=2, cache_tokens=96, share_prefixes=False)
    engine.submit(Request([5] * 14, SamplingConfig(max_new_tokens=40)))
    used = []
    while engine.busy:
        engine.step()
        used.append(6 - engine.stats().free_pages)
    # A step stores the token before the one it draws: the first goes to position 13.
    assert used[:4] == [1, 1, 1, 2]
    assert used[-2:] == [4, 0]


def test_the_youngest_gives_way_and_comes_back() -> None:
    model, _ = model_and_reference()
    alone = Alone(model, eos_id=10**6)
    engine = Engine(model, eos_id=10**6, max_rows=2, cache_tokens=80, share_prefixes=False)
    sampling = SamplingConfig(max_new_tokens=50, temperature=0.4)
    requests = [Request([5] * 20, sampling, seeds=(1,)), Request([6] * 20, sampling, seeds=(11,))]
    tickets = [engine.submit(request) for request in requests]
    order = [token.ticket for _ in range(200) for token in engine.step() if token.finish_reason]
    assert order == tickets
    assert engine.stats().preempted == 1
    assert engine.run(requests) == [alone.completions(request) for request in requests]


def test_rows_with_a_penalty_can_be_cancelled() -> None:
    """The last row takes the place of the one that leaves, its history too, although no step is under way."""
    model, alone = model_and_reference()
    sampling = SamplingConfig(max_new_tokens=30, repetition_penalty=1.4)
    engine = Engine(model, eos_id=EOS, max_rows=2)
    first = engine.submit(Request([5, 6], sampling, seeds=(1,)))
    request = Request([7, 8, 9], sampling, seeds=(2,))
    second = engine.submit(request)
    drawn = {(second, 0): [token for token in engine.step() if token.ticket == second]}
    engine.cancel(first)
    while engine.busy:
        drawn[second, 0] += engine.step()
    compare({second: request}, set(), drawn, alone)


def test_completions_that_find_no_page_wait_in_their_order() -> None:
    """Two prompts begin in one round; of the four completions that follow them the cache has room for one."""
    model, alone = model_and_reference()
    engine = Engine(model, eos_id=EOS, max_rows=8, cache_tokens=80, share_prefixes=False)
    requests = [Request([token] * 20, SamplingConfig(max_new_tokens=9), count=3, seeds=(1, 2, 3)) for token in (5, 6)]
    drawn: dict[tuple[int, int], list[Drawn]] = {}
    tickets = {engine.submit(request): request for request in requests}
    while engine.busy:
        for token in engine.step():
            drawn.setdefault((token.ticket, token.index), []).append(token)
        check_pages(engine)
    compare(tickets, set(), drawn, alone)


def test_an_interrupted_prefill_leaves_nothing_to_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model, alone = model_and_reference()
    engine = Engine(model, eos_id=EOS)
    engine._cache.keys.fill_(7.0)
    request = Request([5, 6] * 20, SamplingConfig(max_new_tokens=9), seeds=(1,))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Decoder, "store", interrupted)
        engine.run([request])
    check_pages(engine)
    assert not engine.busy
    assert engine.run([request]) == [alone.completions(request)]
    assert engine.stats().shared_prompt_tokens == 0


def test_an_interrupted_step_drops_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step has moved the rows on in memory, and nobody has seen what it drew: going on would skip a token."""
    model, alone = model_and_reference()
    engine = Engine(model, eos_id=EOS)
    request = Request([5, 6] * 20, SamplingConfig(max_new_tokens=9), seeds=(1,))
    engine.submit(request)
    engine.step()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "_take", interrupted)
        engine.step()
    check_pages(engine)
    assert (engine.busy, engine.step()) == (False, [])
    assert engine.run([request]) == [alone.completions(request)]


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt
