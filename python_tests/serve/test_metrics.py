"""The numbers of a server, read as Prometheus reads them."""

from __future__ import annotations

from pathlib import Path

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from .served import Running, running, save

TALK = [{"role": "user", "content": "hi"}]


def samples(server: Running) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of the labels' names) -> number."""
    answer = httpx.get(server.url + "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {
        (s.name.removeprefix("instructgpt_fast_"), *(value for _, value in sorted(s.labels.items()))): s.value
        for family in families for s in family.samples
    }


def test_what_is_counted_and_timed(tmp_path: Path) -> None:
    with running(save(tmp_path, "model", ends=False), save(tmp_path, "other", ends=False)) as server:
        chat = server.client.chat.completions.create
        chat(model="model", messages=TALK, n=3, max_tokens=10)
        for _ in chat(model="model", messages=TALK, max_tokens=5, stream=True):
            pass
        with pytest.raises(openai.NotFoundError):
            chat(model="no-such-model", messages=TALK)
        with pytest.raises(openai.BadRequestError):
            chat(model="model", messages=TALK, temperature=-1)
        httpx.get(server.url + "/v1/models/model")
        httpx.get(server.url + "/some/path")
        server.wait_until_idle()
        found = samples(server)
        route = "/v1/chat/completions"
        assert found["requests_total", route, "model", "200"] == 2
        assert found["requests_total", route, "", "404"] == found["requests_total", route, "", "400"] == 1
        assert found["requests_total", "/v1/models/{id}", "", "200"] == found["requests_total", "other", "", "404"] == 1
        assert not any("no-such-model" in key or "/some/path" in key for key in found), "labels stay few"
        assert found["engine_drawn_tokens_total", "model"] == 3 * 10 + 5
        assert found["engine_drawn_tokens_total", "other"] == 0
        assert found["engine_prompt_tokens_total", "model"] > 0
        assert found["time_to_first_token_seconds_count", "model"] == 2
        assert found["time_between_tokens_seconds_count", "model"] == 3 * 9 + 4
        assert found["time_between_tokens_seconds_sum", "model"] > 0
        for name in ("waiting", "prefilling", "active"):
            assert found[f"engine_{name}", "model"] == 0
        assert found["engine_rows", "model"] == 32
        free, cached = found["engine_free_pages", "model"], found["engine_cached_pages", "model"]
        assert free + cached == found["engine_pages", "model"]
