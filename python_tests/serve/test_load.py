"""Many clients at once, some of whom leave, some of whom send what is wrong: nothing lost, nothing leaked.

Each client is OpenAI's own, the server is a process of its own, and what it holds is read from outside: rows and pages
from its metrics, memory from the system.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from .served import Process, process, save, wait_until

CLIENTS = 64
ROWS = 16
KEY = "a-key-for-the-load"
ALONE = 25  # answers that are asked again, with nobody beside
# The allocator's own slack under changing requests; a page of keys and values kept by each of the hundreds of requests
# that are cancelled, or a queue kept by each, would be more.
GROWTH_BYTES = 24 << 20
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "cat", "on", "mat", "café", "東京", "😀", "\n")

GOOD = {"model": "model", "prompt": "x", "max_tokens": 1}
TALK = {"model": "model", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
# Body, further headers, path, status.
BAD: list[tuple[bytes, dict[str, str], str, int]] = [
    *[(json.dumps({**GOOD, **change}).encode(), {}, "completions", 400) for change in (
        {"temperature": -1}, {"seed": -1}, {"n": True}, {"max_tokens": "5"}, {"prompt": {"a": 1}}, {"prompt": [10**9]},
        {"stop": [1]}, {"prompt": "word " * 5000}, {"logit_bias": {"1": 5}}, {"temperatur": 1}, {"n": 10**6},
    )],
    (b'{"model": "model", "prompt": "x", "temperature": NaN}', {}, "completions", 400),
    (b'{"model": "model", "prompt": "x", "top_p": Infinity}', {}, "completions", 400),
    (b'{"model": "model", "prompt": "\xff\xfe"}', {}, "completions", 400),
    (b'{"model": "model", "messages": ' + b"[" * 50_000, {}, "chat/completions", 400),
    (json.dumps({**TALK, "messages": [{"role": "user"}]}).encode(), {}, "chat/completions", 400),
    (json.dumps({**TALK, "tools": [{"type": "function"}]}).encode(), {}, "chat/completions", 400),
    (json.dumps({**GOOD, "model": "/etc/passwd"}).encode(), {}, "completions", 404),
    (json.dumps(GOOD).encode(), {"Authorization": "Bearer wrong"}, "completions", 401),
    (json.dumps(GOOD).encode(), {"Authorization": ""}, "completions", 401),
    (json.dumps(GOOD).encode(), {"Content-Type": "text/plain"}, "completions", 415),
    (b"{}", {}, "embeddings", 404),
]
HUGE = json.dumps({**GOOD, "prompt": "x" * 10_000_000}).encode()


@dataclass
class Record:
    """What the clients have seen."""

    counts: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[dict[str, Any], list[dict[str, Any]]]] = field(default_factory=list)


def request_of(chance: random.Random) -> dict[str, Any]:
    """A request of random length, one in three with log-probabilities, one in four with a stop string."""
    text = " ".join(chance.choices(WORDS, k=chance.randint(1, 60)))
    return {
        "model": "model", "messages": [{"role": "user", "content": text}],
        "max_tokens": chance.randint(1, 60), "n": chance.choice((1, 1, 1, 2, 4)), "seed": chance.randrange(2**63),
        "temperature": chance.choice((0.0, 0.7, 1.0)), "logprobs": chance.random() < 0.3,
        "stop": ["the"] if chance.random() < 0.25 else None,
    }


def add(answer: dict[str, Any], text: str, logprobs: Any, reason: str | None) -> None:
    assert answer["reason"] is None, "something came after the end"
    answer["text"] += text
    answer["reason"] = reason
    if logprobs is not None:
        answer["logprobs"] += [entry.logprob for entry in logprobs.content]


async def ask(client: openai.AsyncOpenAI, asked: dict[str, Any], stream: bool, leave_after: int | None) -> Any:
    """The answers of a request, each with text, log-probabilities and reason; None when the client left."""
    answers: list[dict[str, Any]] = [{"text": "", "logprobs": [], "reason": None} for _ in range(asked["n"])]
    if not stream:
        whole = await client.chat.completions.create(**asked)
        for choice in whole.choices:
            add(answers[choice.index], choice.message.content or "", choice.logprobs, choice.finish_reason)
        assert whole.usage is not None
        counted = whole.usage.completion_tokens
    else:
        counted, seen = -1, 0
        options = {"stream": True, "stream_options": {"include_usage": True}}
        events = await client.chat.completions.create(**asked, **options)
        async for event in events:
            for choice in event.choices:
                add(answers[choice.index], choice.delta.content or "", choice.logprobs, choice.finish_reason)
            counted = event.usage.completion_tokens if event.usage else counted
            seen += 1
            if leave_after is not None and seen >= leave_after:
                await events.close()
                return None
    assert all(answer["reason"] in ("stop", "length") for answer in answers), "an answer was lost"
    if asked["logprobs"]:
        assert counted == sum(len(answer["logprobs"]) for answer in answers), "a token was lost"
    return answers


async def one_client(
    client: openai.AsyncOpenAI, plain: httpx.AsyncClient, number: int, end: float, record: Record
) -> None:
    """Ask until the time is over, and twice in any case: the machine may be slow."""
    chance, asked_so_far = random.Random(number), 0
    while time.monotonic() < end or asked_so_far < 2:
        asked_so_far += 1
        kind = chance.choices(("stays", "leaves", "wrong"), (6, 2, 1))[0]
        record.counts[kind] += 1
        if kind == "wrong":
            await wrong(plain, chance)
            continue
        asked, stream = request_of(chance), chance.random() < 0.7
        leave_after = chance.randint(1, 20) if kind == "leaves" and stream else None
        asking = asyncio.ensure_future(ask(client, asked, stream, leave_after))
        if kind == "leaves" and not stream:
            await asyncio.wait((asking,), timeout=chance.uniform(0.0, 0.3))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        else:
            answers = await asking
            if answers is not None:
                record.answers.append((asked, answers))


async def wrong(client: httpx.AsyncClient, chance: random.Random) -> None:
    """A request that no server could serve; each gets its status and a reason."""
    huge = chance.random() < 0.03
    body, headers, path, status = (HUGE, {}, "completions", 413) if huge else chance.choice(BAD)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}
    answer = await client.post(path, content=body, headers=headers)
    assert answer.status_code == status, (body[:100], answer.text)
    assert len(answer.json()["error"]["message"]) > 10


async def load(url: str, seconds: float, record: Record, first: int) -> None:
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=120) as client,
        httpx.AsyncClient(base_url=f"{url}/v1", timeout=120) as plain,
    ):
        end = time.monotonic() + seconds
        await asyncio.gather(*(one_client(client, plain, first + i, end, record) for i in range(CLIENTS)))


def numbers(url: str) -> dict[str, float]:
    """The engine's numbers of the metrics by their short names."""
    text = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {s.name.removeprefix("instructgpt_fast_engine_"): s.value for s in samples if "_engine_" in s.name}


def idle(url: str) -> bool:
    found = numbers(url)
    return (
        found["waiting"] == found["prefilling"] == found["active"] == 0
        and found["free_pages"] + found["cached_pages"] == found["pages"]
    )


def memory(server: Process) -> int:
    """Bytes of memory that the process holds."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    monkeypatch.setenv("INSTRUCTGPT_FAST_API_KEY", KEY)
    checkpoint = save(tmp_path, "model", readable=False, end_logit=0.0)
    # An eighth of the pages that all rows could fill: rows are preempted and continue.
    words = ("--max-rows", str(ROWS), "--max-queue", "512", "--cache-tokens", str(ROWS * 32))
    with process(tmp_path / "log", checkpoint, *words) as server:
        url, record = server.url(), Record()
        asyncio.run(load(url, seconds / 2, record, first=0))
        wait_until(lambda: idle(url), lambda: f"not idle after the first half: {numbers(url)}")
        before = memory(server)
        asyncio.run(load(url, seconds / 2, record, first=CLIENTS))
        wait_until(lambda: idle(url), lambda: f"not idle: {numbers(url)}")
        growth = memory(server) - before
        assert server.process.poll() is None and "Traceback" not in server.told, server.told
        assert growth < GROWTH_BYTES, f"{growth / 2**20:.1f} MiB more after the second half than after the first"
        assert min(record.counts.values()) > 0 and len(record.answers) >= CLIENTS, record.counts
        assert numbers(url)["preempted_total"] > 0, "the cache was to be too small for all"
        for asked, answers in random.Random(0).sample(record.answers, ALONE):
            assert asyncio.run(asked_alone(url, asked)) == answers, f"another answer than alone to {asked}"
        print(f"{seconds} s: {dict(record.counts)}, growth {growth / 2**20:.1f} MiB, {numbers(url)}")  # noqa: T201


async def asked_alone(url: str, asked: dict[str, Any]) -> Any:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        return await ask(client, asked, stream=False, leave_after=None)
