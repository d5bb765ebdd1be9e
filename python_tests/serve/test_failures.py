"""What breaks in a model or in the server reaches those who wait for it, and nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import torch

from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.serve import asking, run
from instructgpt_fast.serve.options import ServeConfig

from .served import Running, running, save, wait_until


@pytest.fixture
def server(tmp_path: Any) -> Iterator[Running]:
    good, bad = save(tmp_path, "good", context=2048, ends=False), save(tmp_path, "bad", context=2048, ends=False)
    with running(good, bad, max_rows=4) as started:
        yield started


def chat(model: str, **options: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, **options}


def break_weights(server: Running) -> None:
    with torch.no_grad():
        server.serving.models["bad"].loaded.model.wte.weight.fill_(torch.nan)  # type: ignore[union-attr,operator]


def test_a_broken_model_fails_its_own_requests_alone(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    client = server.client
    stream = client.chat.completions.create(**chat("bad", max_tokens=2000), stream=True)
    next(iter(stream))
    beside = client.chat.completions.create(**chat("good", max_tokens=300, seed=1), stream=True)
    break_weights(server)
    with pytest.raises(openai.APIError, match="The model 'bad' has failed and serves no more requests"):
        for _ in stream:
            pass
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(**chat("bad"))
    assert (raised.value.status_code, raised.value.code) == (500, "model_failed")
    assert "must be numbers, got NaN" in caplog.text, "why is told to the log"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in beside)
    alone = client.chat.completions.create(**chat("good", max_tokens=300, seed=1))
    assert text == alone.choices[0].message.content
    health = httpx.get(server.url + "/health")
    assert (health.status_code, health.json()) == (
        200, {"status": "degraded", "models": {"good": "ok", "bad": "failed"}})
    assert server.serving.worker.in_flight("bad") == 0


def test_health_when_nothing_is_left(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise MemoryError("no room")

    for model in server.serving.models.values():
        monkeypatch.setattr(model.engine, "step", fail)
        with pytest.raises(openai.InternalServerError, match="has failed"):
            server.client.chat.completions.create(**chat(model.name))
    health = httpx.get(server.url + "/health")
    assert (health.status_code, health.json()["status"]) == (503, "failed")


def test_a_request_that_cannot_be_taken_fails_alone(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = server.serving.models["good"].engine.submit

    def mistaken(request: Any) -> int:
        if request.count == 3:
            raise ZeroDivisionError("secret words")
        return submit(request)

    monkeypatch.setattr(server.serving.models["good"].engine, "submit", mistaken)
    with pytest.raises(openai.InternalServerError) as raised:
        server.client.chat.completions.create(**chat("good", n=3))
    assert raised.value.code == "internal_error" and "secret" not in raised.value.message
    assert server.client.chat.completions.create(**chat("good", n=2)).choices[1].message.content
    server.wait_until_idle()


def test_the_end_of_the_thread_is_told_to_all(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the worker itself: nobody waits for ever."""
    worker = server.serving.worker

    def mistaken(served: Any) -> None:
        raise ZeroDivisionError("secret words")

    monkeypatch.setattr(worker, "_step", mistaken)
    with pytest.raises(openai.InternalServerError):
        server.client.chat.completions.create(**chat("good"))
    wait_until(lambda: not worker.alive, lambda: "the thread lives on")
    for model in ("good", "bad"):
        with pytest.raises(openai.InternalServerError, match="has failed"):
            server.client.chat.completions.create(**chat(model))
    assert httpx.get(server.url + "/health").status_code == 503


def test_a_mistake_in_a_route_is_a_500_without_its_words(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*given: Any, **options: Any) -> None:
        raise ZeroDivisionError("secret words")

    with monkeypatch.context() as broken:
        broken.setattr(asking, "finish_reason", mistaken)
        answer = httpx.post(server.url + "/v1/chat/completions", json=chat("good"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    server.wait_until_idle()


def test_models_are_loaded_in_a_thread_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it returns and what it raises come to the caller as if there were no thread."""
    threads, config = [], ServeConfig(checkpoint=("somewhere",))

    def load(given: ServeConfig) -> dict[str, Any]:
        threads.append(threading.current_thread())
        if len(threads) == 2:
            raise CheckpointError("it is damaged")
        return {"given": given}

    monkeypatch.setattr(run, "load_models", load)
    assert run.loaded_elsewhere(config) == {"given": config}
    assert threads[0] is not threading.current_thread() and not threads[0].is_alive()
    with pytest.raises(CheckpointError, match="it is damaged"):
        run.loaded_elsewhere(config)
