"""Streaming HTTP clients that cost little themselves: sockets in one event loop, each asks again once answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

DATA, DONE = b"data: ", b"data: [DONE]"


@dataclass(frozen=True)
class Streamed:
    """One answer. text: its pieces joined. tokens: as the server counts them. first_ms: from asking to its first
    piece, the connection included; the same for `whole_ms` and its end."""

    text: str
    tokens: int
    first_ms: float
    whole_ms: float


def ask(url: str, bodies: Sequence[dict[str, Any]], clients: int) -> list[Streamed]:
    """Send all requests, `clients` at a time; returns the answers in their order. Raises SystemExit for a refusal."""
    return asyncio.run(_ask(url, bodies, clients))


async def _ask(url: str, bodies: Sequence[dict[str, Any]], clients: int) -> list[Streamed]:
    waiting = iter(enumerate(bodies))
    answers: list[Streamed | None] = [None] * len(bodies)

    async def client() -> None:
        for place, body in waiting:
            answers[place] = await _stream(url, body)

    await asyncio.gather(*(client() for _ in range(clients)))
    return [answer for answer in answers if answer is not None]


async def _stream(url: str, body: dict[str, Any]) -> Streamed:
    to = urlsplit(url)
    data = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    head = (
        f"POST {to.path} HTTP/1.1\r\nHost: {to.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(to.hostname, to.port)
    try:
        writer.write(head.encode() + data)
        await writer.drain()
        status = await reader.readline()
        if status.split()[1:2] != [b"200"]:
            raise SystemExit(f"the server refused a request: {status!r} {(await reader.read()).decode()[-500:]}")
        return await _events(reader, started)
    finally:
        writer.close()


async def _events(reader: asyncio.StreamReader, started: float) -> Streamed:
    pieces: list[str] = []
    tokens, first = 0, 0.0
    # Lines that are no event (headers, sizes of chunks, empty ones) say nothing that is needed here.
    while (line := await reader.readline()) and not line.startswith(DONE):
        if not line.startswith(DATA):
            continue
        event = json.loads(line[len(DATA) :])
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
        for choice in event["choices"]:
            pieces.append(choice["text"])
            first = first or time.perf_counter()
    if not line:
        raise SystemExit(f"the server ended a stream before its end, after {len(pieces)} pieces")
    ended = time.perf_counter()
    return Streamed("".join(pieces), tokens, ((first or ended) - started) * 1e3, (ended - started) * 1e3)
