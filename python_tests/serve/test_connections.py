"""Connections that say nothing, read nothing, or come under a name that is not this machine's."""

from __future__ import annotations

import dataclasses
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from instructgpt_fast.serve import asking, respond
from instructgpt_fast.serve.limits import Limits

from .served import Running, running, save, wait_until


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("models"), "talk", ends=False)


@pytest.fixture(scope="module")
def hasty(path: str) -> Iterator[Running]:
    with running(path, body_seconds=0.3) as started:
        yield started


@pytest.fixture(scope="module")
def named(path: str) -> Iterator[Running]:
    with running(path, allowed_hosts=("models.example.org",)) as started:
        yield started


def place(server: Running) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_a_head_that_never_ends_is_not_waited_for(hasty: Running, begun: bytes) -> None:
    with socket.create_connection(place(hasty), timeout=60) as connection:
        connection.sendall(begun)
        assert connection.recv(1000) == b"", "closed without an answer, for nothing was asked"


def test_a_connection_may_wait_between_requests(hasty: Running) -> None:
    """As every client's pool does; but a second request that is begun has to be ended too."""
    connection = http.client.HTTPConnection(*place(hasty), timeout=60)
    connection.connect()
    connection.auto_open = 0
    for _ in range(2):
        connection.request("GET", "/health")
        assert connection.getresponse().read().startswith(b'{"status":"ok"')
        time.sleep(0.6)
    assert connection.sock is not None
    connection.sock.sendall(b"GET /")
    assert connection.sock.recv(1000) == b""
    connection.close()


def test_too_many_connections_are_closed(path: str) -> None:
    with running(path, max_connections=2) as server:
        idle = [socket.create_connection(place(server)) for _ in range(2)]
        wait_until(lambda: len(server.server.server_state.connections) == 2, lambda: "they are not taken")
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url + "/health")
        idle.pop().close()
        wait_until(lambda: len(server.server.server_state.connections) == 1, lambda: "its end is not noticed")
        assert httpx.get(server.url + "/health").status_code == 200
        idle.pop().close()


def test_an_answer_that_nobody_reads_is_dropped(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is not streamed: megabytes of log-probabilities must not wait for ever, nor all in memory."""
    async def large(whole: dict[str, Any]) -> bytes:
        return b" " * 50_000_000

    monkeypatch.setattr(respond, "rendered", large)
    with running(path, request_seconds=1.0) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(place(server))
        body = json.dumps({"model": "talk", "prompt": "x", "max_tokens": 1})
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        open_ones = server.server.server_state.connections
        (one,) = open_ones
        assert one.transport.get_write_buffer_size() < 1_000_000
        wait_until(lambda: not open_ones, lambda: "the connection stays")
        monkeypatch.undo()
        line = 'instructgpt_fast_requests_total{endpoint="/v1/completions",model="talk",status="503"} 1.0'
        assert line in httpx.get(server.url + "/metrics").text


def test_a_large_body_is_read_beside_the_event_loop(hasty: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of small messages takes most of a second, in which streams would stand still."""
    seen: list[str] = []
    parse = asking.parse

    def noting(cls: Any, body: bytes) -> Any:
        seen.append(threading.current_thread().name)
        return parse(cls, body)

    monkeypatch.setattr(asking, "parse", noting)
    small = httpx.post(hasty.url + "/v1/completions", json={"model": "talk", "prompt": [[1]] * 3})
    large = httpx.post(hasty.url + "/v1/completions", json={"model": "talk", "prompt": [[1]] * 50_000}, timeout=60)
    assert (small.status_code, large.status_code) == (200, 400)
    assert "32 answers, got 50000 prompts" in large.json()["error"]["message"]
    assert seen[0] != seen[1] and seen[1].startswith("asyncio")


@pytest.mark.parametrize(("host", "status"), [
    ("localhost", 200), ("LOCALHOST:8000", 200), ("localhost.:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200),
    ("192.168.0.7:80", 200), ("models.example.org", 200), ("evil.example", 403), ("evil.example:8000", 403),
    ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403),
])
def test_names_that_lead_here(named: Running, host: str, status: int) -> None:
    """A page of another site whose name its owner lets lead to 127.0.0.1 (DNS rebinding) sends no Origin with GET."""
    for where in ("/", "/health", "/v1/models", "/metrics"):
        assert httpx.get(named.url + where, headers={"Host": host}).status_code == status, where
    body = {"model": "talk", "prompt": "x", "max_tokens": 1}
    answer = httpx.post(named.url + "/v1/completions", json=body, headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "host_not_allowed"
        assert f"got '{host.partition(':')[0]}'; start the server with --allowed-hosts" in answer.text


def test_with_a_key_any_name_will_do(path: str) -> None:
    """A page that has its name lead here does not know the key; a proxy before the server may keep its own name."""
    with running(path, key="long-enough-key") as server:
        headers = {"Host": "models.example.org", "Authorization": "Bearer long-enough-key"}
        assert httpx.get(server.url + "/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(("local", "allowed", "passes"), [
    ("127.0.0.1", (), False), ("::1", (), False), ("::ffff:127.0.0.1", (), False), ("192.168.0.7", (), True),
    ("192.168.0.7", ("models.example.org",), False),
])
def test_only_this_machines_own_address_is_guarded_by_itself(
    hasty: Running, local: str, allowed: tuple[str, ...], passes: bool,
) -> None:
    """On other addresses whoever reaches the port may use it, as the warning at the start says."""
    config = dataclasses.replace(hasty.serving.config, allowed_hosts=allowed)
    guard = Limits(lambda *given: None, config, None, hasty.serving.gate)  # type: ignore[arg-type]
    scope = {"type": "http", "path": "/", "headers": [(b"host", b"evil.example")], "server": (local, 8000)}
    if passes:
        guard._check_host(scope)
    else:
        with pytest.raises(Exception, match="must be localhost"):
            guard._check_host(scope)


def test_nothing_is_told_to_telemetry(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    """Newer versions of FastAPI would set exporters up where the environment says so, and describe each request."""
    trace = pytest.importorskip("opentelemetry.trace")
    asked: list[str] = []

    class Noting(trace.NoOpTracerProvider):  # type: ignore[name-defined]
        def get_tracer(self, *given: Any, **options: Any) -> Any:
            asked.append("a tracer")
            return super().get_tracer(*given, **options)

    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(trace, "get_tracer_provider", Noting)
    with caplog.at_level(logging.INFO), running(path) as server:
        assert httpx.get(server.url + "/v1/models").status_code == 200
    assert not asked and "telemetry" not in caplog.text
