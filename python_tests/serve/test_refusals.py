"""What a server refuses: the status, the reason in OpenAI's shape, and the exception that its client makes of it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from .served import CONTEXT, Running, running, save, tokenizer, wait_until

KEY = "correct horse battery".replace(" ", "-")
TALK: dict[str, Any] = {"model": "talk", "messages": [{"role": "user", "content": "hi"}]}
ENDLESS = {**TALK, "model": "endless"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def paths(folder: Any) -> list[str]:
    return [save(folder, "talk", ends=False), save(folder, "text", prompt_format="raw", seed=1)]


@pytest.fixture(scope="module")
def endless(folder: Any) -> str:
    """A model whose answers are still under way whenever a test looks, however slowly it gets to look."""
    return save(folder, "endless", ends=False, context=8192)


@pytest.fixture(scope="module")
def server(paths: list[str]) -> Iterator[Running]:
    options: dict[str, Any] = {"max_request_bytes": 50_000, "max_new_tokens": 200, "max_choices": 6}
    with running(*paths, key=KEY, **options) as started:
        yield started
        assert all(model.failure is None for model in started.serving.models.values())


@contextlib.contextmanager
def refused(kind: type[openai.APIStatusError], status: int, told: str, param: str | None = None) -> Iterator[None]:
    with pytest.raises(kind) as raised:
        yield
    body = raised.value.body
    assert raised.value.status_code == status
    assert isinstance(body, dict) and body.keys() == {"message", "type", "param", "code"}
    assert told in body["message"]
    assert param is None or body["param"] == param


@pytest.mark.parametrize(("options", "told", "param"), [
    ({"temperature": -1}, "temperature must be greater than or equal to 0", "temperature"),
    ({"n": 7}, "6 answers, got 1 prompts times n=7", "n"), ({"max_tokens": 201}, "200 tokens an answer", "max_tokens"),
    ({"seed": -1}, "seed must be", "seed"), ({"presence_penalty": 1}, "presence_penalty is not served", None),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools is not served", "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format is not served", "response_format"),
    ({"top_logprobs": 3}, "must come with logprobs=true", "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "must come with stream=true", "stream_options"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "mean the same, got 5 and 6", "max_tokens"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "must alternate, beginning with the user", "messages"),
    ({"messages": [{"role": "system", "content": "x"}]}, "a system message alone", "messages"),
    ({"messages": [*TALK["messages"], {"role": "assistant", "content": "y"}]}, "end with the user", None),
    ({"model": "text", "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]},
     "knows no roles (its prompt format is 'raw'), so messages must be one user message, got system, user", "messages"),
    ({"model": "text", "messages": [{"role": "user", "content": ""}]}, "at least one token, got none", "messages"),
    ({"extra_body": {"top_kk": 5}}, "unknown field 'top_kk', did you mean 'top_k'?", "top_kk"),
], ids=str)
def test_wrong_chats(server: Running, options: dict[str, Any], told: str, param: str | None) -> None:
    for stream in (False, True):
        if "stream_options" not in options or not stream:
            with refused(openai.BadRequestError, 400, told, param):
                server.client.chat.completions.create(**{**TALK, **options}, stream=stream)


@pytest.mark.parametrize(("options", "told", "param"), [
    ({"echo": True, "logprobs": 1}, "echo is not served together with logprobs", "echo"),
    ({"best_of": 3}, "best_of is not served but as n", "best_of"), ({"suffix": "."}, "suffix is not served", "suffix"),
    ({"prompt": [10**6]}, "1000000", "prompt"), ({"prompt": [-1]}, "-1", "prompt"),
    ({"prompt": [10**6], "echo": True}, "1000000", "prompt"), ({"prompt": ["a"] * 7}, "6 answers", "n"),
    ({"prompt": [5] * CONTEXT}, f"{CONTEXT} tokens, prompt and answer together, got a prompt of {CONTEXT}", "prompt"),
], ids=lambda value: str(value)[:60])
def test_wrong_completions(server: Running, options: dict[str, Any], told: str, param: str | None) -> None:
    with refused(openai.BadRequestError, 400, told, param):
        server.client.completions.create(**{"model": "text", "prompt": "x", **options})


def test_a_prompt_beyond_the_context_has_its_own_code(server: Running) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        server.client.chat.completions.create(model="talk", messages=[{"role": "user", "content": "z" * 2000}])
    assert raised.value.code == "context_length_exceeded"
    assert f"The context of 'talk' is {CONTEXT} tokens" in raised.value.message


@pytest.mark.parametrize("name", ["gpt-4", "/etc/passwd", "../talk", "talk/../talk", "Talk", "tal", "x" * 150])
def test_models_are_looked_up_in_a_table(server: Running, folder: Any, name: str) -> None:
    with refused(openai.NotFoundError, 404, "There are: talk, text.", "model"):
        server.client.completions.create(model=name, prompt="x")
    with refused(openai.NotFoundError, 404, "No model is called"):
        server.client.completions.create(model=str(folder / "talk"), prompt="x")


def test_keys(server: Running) -> None:
    for wrong in ("wrong", KEY + "x", KEY[:-1]):
        with refused(openai.AuthenticationError, 401, "asks for its API key, got a wrong one"):
            server.client.chat.completions.create(**TALK, extra_headers={"Authorization": f"Bearer {wrong}"})
    beyond_ascii = {"Authorization": "Bearer ключ".encode()}
    assert httpx.get(server.url + "/v1/models", headers=beyond_ascii).status_code == 401
    for path in ("/v1/models", "/v1/completions", "/metrics", "/nothing"):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
        assert "got none" in answer.json()["error"]["message"]
    assert httpx.get(server.url + "/v1/models", headers={"Authorization": f"Basic {KEY}"}).status_code == 401
    assert httpx.get(server.url + "/v1/models", headers={"Authorization": f"bearer {KEY}"}).status_code == 200
    assert httpx.get(server.url + "/health").json() == {"status": "ok", "models": {"talk": "ok", "text": "ok"}}


def post(server: Running, body: Any, **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **options.pop("headers", {})}
    return httpx.post(server.url + options.pop("path", "/v1/completions"), content=body, headers=headers, timeout=60)


def test_bodies_that_are_too_large(server: Running) -> None:
    for size in (50_001, 10_000_000):
        answer = post(server, json.dumps({"model": "text", "prompt": "x" * size}))
        assert answer.status_code == 413
        assert "at most 50,000 bytes, got " in answer.json()["error"]["message"]
    with refused(openai.APIStatusError, 413, "at most 50,000 bytes"):
        server.client.completions.create(model="text", prompt="x" * 10_000_000)

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    announced_by_none = post(server, chunks())
    assert (announced_by_none.status_code, announced_by_none.json()["error"]["code"]) == (413, "request_too_large")
    assert post(server, b" " * 49_000 + b"{}").status_code == 400, "below the limit a body is read"


def test_what_is_no_request(server: Running) -> None:
    for body in (b"", b"{", b"[" * 40_000, b"\xff", b'{"model": "text", "prompt": "\xff"}', b'"text"', b"5"):
        answer = post(server, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json"), body[:20]
    wrong_kind = post(server, b"{}", headers={"Content-Type": "text/plain"})
    assert (wrong_kind.status_code, wrong_kind.json()["error"]["code"]) == (415, "unsupported_content_type")
    nowhere = post(server, b"{}", path="/v1/embeddings")
    assert nowhere.status_code == 404 and "There is nothing at /v1/embeddings" in nowhere.json()["error"]["message"]
    not_posted = httpx.get(server.url + "/v1/completions", headers={"Authorization": f"Bearer {KEY}"})
    assert not_posted.status_code == 405 and "is asked by POST, got GET" in not_posted.json()["error"]["message"]
    for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/docs", "/openapi.json", "/assets/page.js"):
        answer = httpx.get(server.url + path, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 404, path


def test_other_web_sites_are_not_let_in(server: Running, paths: list[str]) -> None:
    preflight = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization,content-type"}
    answer = httpx.options(server.url + "/v1/completions", headers=preflight)
    assert answer.status_code >= 400 and "access-control-allow-origin" not in answer.headers
    with running(paths[1], allowed_origins=("https://example.org",), key=KEY) as open_to_one:
        allowed = httpx.options(open_to_one.url + "/v1/completions", headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == "https://example.org"
        unread = httpx.get(open_to_one.url + "/v1/models", headers={"Origin": "https://example.org"})
        assert (unread.status_code, unread.headers["access-control-allow-origin"]) == (401, "https://example.org")
        other = httpx.options(open_to_one.url + "/v1/completions", headers={**preflight, "Origin": "https://evil.org"})
        assert "access-control-allow-origin" not in other.headers


def test_a_full_queue(endless: str) -> None:
    with running(endless, max_rows=2, max_queue=1) as small:
        client = small.client
        streams = [client.chat.completions.create(**ENDLESS, stream=True, n=n) for n in (2, 1)]
        with refused(openai.RateLimitError, 429, "The queue of 'endless' is full: 3 answers are under way"):
            client.chat.completions.create(**ENDLESS)
        with pytest.raises(openai.RateLimitError) as raised:
            client.chat.completions.create(**ENDLESS)
        assert raised.value.response.headers["retry-after"] == "1"
        with refused(openai.BadRequestError, 400, "one request may ask for 3 answers"):
            client.chat.completions.create(**ENDLESS, n=4)
        for stream in streams:
            stream.close()
        small.wait_until_idle()
        assert client.chat.completions.create(**ENDLESS, n=3, max_tokens=2).usage.completion_tokens == 6


def test_too_many_requests_at_once(endless: str) -> None:
    with running(endless, max_requests=2) as small:
        client = small.client
        streams = [client.chat.completions.create(**ENDLESS, stream=True) for _ in range(2)]
        with refused(openai.RateLimitError, 429, "2 requests are under way, this server's limit"):
            client.models.list()
        assert httpx.get(small.url + "/health").status_code == 200, "a watcher is always answered"
        for stream in streams:
            stream.close()
        wait_until(lambda: httpx.get(small.url + "/v1/models").status_code == 200, lambda: "the places are not free")


def test_requests_that_take_too_long(folder: Any) -> None:
    with running(save(folder, "slow", ends=False, context=4096), request_seconds=0.5, body_seconds=0.3) as small:
        asked = {**TALK, "model": "slow", "n": 8}
        with pytest.raises(openai.InternalServerError) as raised:
            small.client.chat.completions.create(**asked)
        assert (raised.value.status_code, raised.value.code) == (503, "request_timeout")
        assert raised.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.APIError, match="took longer than this server's limit of"):
            for _ in small.client.chat.completions.create(**asked, stream=True):
                pass
        small.wait_until_idle()
        host, port = small.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                               b"Content-Length: 100\r\n\r\n{")
            assert b"408" in connection.recv(1000).split(b"\r\n")[0]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_rows(folder: Any, stream: bool) -> None:
    with running(save(folder, f"long{stream}", ends=False, context=4096), max_rows=4) as server:
        host, port = server.url.removeprefix("http://").split(":")
        body = json.dumps({"model": f"long{stream}", "prompt": "x", "n": 6, "max_tokens": 4000, "stream": stream})
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                               f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
            stats = server.serving.worker.stats
            wait_until(lambda: stats[f"long{stream}"].active == 4, lambda: f"not begun: {stats}")
        server.wait_until_idle()
        assert stats[f"long{stream}"].drawn_tokens < 6 * 4000
        line = f'instructgpt_fast_requests_total{{endpoint="/v1/completions",model="long{stream}",status="499"}} 1.0'
        wait_until(lambda: line in httpx.get(server.url + "/metrics").text, lambda: "its leaving is not counted")


def test_a_client_that_does_not_read_is_left(folder: Any) -> None:
    """Its tokens are not kept beyond the limit, and its rows go to others."""
    with running(save(folder, "much", ends=False, context=4096), max_unread_tokens=64) as server:
        host, port = server.url.removeprefix("http://").split(":")
        body = json.dumps({"model": "much", "prompt": "x", "n": 16, "logprobs": 5, "max_tokens": 4000, "stream": True})
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                               f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
            stats = server.serving.worker.stats
            wait_until(lambda: stats["much"].active == 16, lambda: f"not begun: {stats}")
            server.wait_until_idle()
            assert stats["much"].drawn_tokens < 16 * 4000
            line = 'instructgpt_fast_requests_total{endpoint="/v1/completions",model="much",status="503"} 1.0'
            wait_until(lambda: line in httpx.get(server.url + "/metrics").text, lambda: "the client is not given up")


def test_long_texts_are_refused_in_a_moment(server: Running, paths: list[str]) -> None:
    """Texts that tokenizers have been slow on; half a megabyte each must not cost minutes."""
    with running(paths[1]) as large:
        for text in ("a" * 500_000, " " * 500_000, "ab" * 250_000, "\n" * 500_000, "😀" * 100_000):
            begun = time.monotonic()
            answer = httpx.post(large.url + "/v1/completions", json={"model": "text", "prompt": text}, timeout=60)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
            # No measure of speed: what is feared takes hours.
            assert time.monotonic() - begun < 30
    assert tokenizer().encode("a" * 10)
