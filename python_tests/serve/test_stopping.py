"""A real process, told to stop in the middle of a stream: what is under way is finished, and it exits with 0."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from .served import Process, process, save, wait_until

# A second of streaming: the signal comes in the middle also where this process gets its turn late.
LONG = 4000


@contextlib.contextmanager
def served(tmp_path: Path, *words: str) -> Iterator[Process]:
    with process(tmp_path / "log", save(tmp_path, "model", ends=False, context=4096), *words) as started:
        yield started


def stream(url: str, max_tokens: int) -> Any:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)
    return iter(client.completions.create(model="model", prompt="x", max_tokens=max_tokens, seed=1, stream=True))


def test_a_stop_lets_a_stream_end(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        url = server.url()
        chunks = stream(url, LONG)
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        told = "stopping: answers under way (1) may take 30 seconds more"
        wait_until(lambda: told in server.told, lambda: server.told)
        rest = list(chunks)
        assert rest[-1].choices[0].finish_reason == "length", "the answer is whole"
        assert server.process.wait(120) == 0, server.told
        assert "Traceback" not in server.told
        with pytest.raises(httpx.ConnectError):
            httpx.get(url + "/health")


def test_what_takes_longer_than_the_grace_is_told_so(tmp_path: Path) -> None:
    with served(tmp_path, "--grace-seconds", "0.2") as server:
        chunks = stream(server.url(), LONG)
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="The server is stopping; send the request again later"):
            for _ in chunks:
                pass
        assert server.process.wait(120) == 0, server.told
        assert "Traceback" not in server.told


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        chunks = stream(server.url(), LONG)
        next(chunks)
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: "stopping: answers under way (1)" in server.told, lambda: server.told)
        server.process.send_signal(signal.SIGINT)
        with pytest.raises((openai.APIError, httpx.HTTPError)):
            for _ in chunks:
                pass
        assert server.process.wait(120) == 0, server.told
        assert "stopping now" in server.told and "Traceback" not in server.told


def test_an_idle_server_says_what_it_serves_and_stops(tmp_path: Path) -> None:
    with served(tmp_path, "--names", "model", "--log-requests") as server:
        url = server.url()
        assert httpx.get(url + "/v1/models").json()["data"][0]["id"] == "model"
        server.process.terminate()
        assert server.process.wait(120) == 0
        described = r"^model: [\d,]+ parameters, context 4096, dialogue prompts, .*model$"
        assert re.search(described, server.told, re.MULTILINE)
        assert '"GET /v1/models HTTP/1.1" 200' in server.told
        assert "stopping: nothing is under way" in server.told
        assert "warning" not in server.told.lower(), "an address of this machine alone needs no key"
