"""From a checked request to its response: whole or as a stream of events, cancelled as soon as the client goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from instructgpt_fast.generate.requests import Request
from instructgpt_fast.serve import errors
from instructgpt_fast.serve.answer import Answer
from instructgpt_fast.serve.errors import ApiError
from instructgpt_fast.serve.events import event, to_json
from instructgpt_fast.serve.limits import Gate
from instructgpt_fast.serve.metrics import Metrics
from instructgpt_fast.serve.models import Served
from instructgpt_fast.serve.options import ServeConfig
from instructgpt_fast.serve.worker import Worker
from instructgpt_fast.serve.writer import Writer

log = logging.getLogger("instructgpt_fast.serve")

# How long the last words to a client may take that may not be reading.
_LAST_WORDS_SECONDS = 1.0
# Bytes of an answer that are handed to the connection at once; the next ones wait until these are taken.
_PIECE = 1 << 16


@dataclass(frozen=True)
class Serving:
    """Everything that the routes share."""

    config: ServeConfig
    models: dict[str, Served]
    worker: Worker
    metrics: Metrics
    gate: Gate


class ClientGoneError(Exception):
    """Nobody is left to answer."""


async def respond(
    http: HttpRequest, serving: Serving, served: Served, requests: Sequence[Request], writer: Writer, *,
    stream: bool, include_usage: bool,
) -> Response:
    """Have the requests answered by the model and return the response; raises ApiError where that fails.

    include_usage: whether a stream ends with the counts of tokens.
    """
    http.scope.setdefault("state", {})["model"] = served.name
    answer = serving.worker.submit(served, requests)
    streaming = False
    try:
        async with asyncio.timeout(serving.config.request_seconds):
            if not stream:
                await until_gone(http.receive, answer, _collect(answer, writer))
                return WholeAnswer(serving, answer, await rendered(writer.whole()))
            await until_gone(http.receive, answer, answer.accepted())
            streaming = True
            return EventStream(serving, answer, writer, include_usage)
    except TimeoutError:
        raise errors.timed_out(serving.config.request_seconds) from None
    except ClientGoneError:
        http.scope["state"]["status"] = errors.CLIENT_GONE
        return Response(status_code=errors.CLIENT_GONE)
    finally:
        # A stream only begins here, and cancels for itself.
        if not streaming:
            serving.worker.cancel(answer)


async def _collect(answer: Answer, writer: Writer) -> None:
    async for batch in answer.batches():
        for token in batch:
            writer.keep(token)


async def until_gone(receive: Receive, answer: Answer, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, unless the client goes first (ClientGoneError) or stops reading (ApiError)."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    failing = asyncio.ensure_future(answer.failed.wait())
    tasks = (working, leaving, failing)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and not leaving.done():
            # The request has failed, which the work tells the client, unless it is stuck in sending.
            await asyncio.wait((working,), timeout=_LAST_WORDS_SECONDS)
        if working.done():
            working.result()
        elif answer.failure is not None and not leaving.done():
            raise answer.failure
        else:
            raise ClientGoneError
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def rendered(whole: dict[str, Any]) -> bytes:
    """The JSON of an answer in one piece; between its choices, which can be megabytes, others get their turn."""
    choices = []
    for choice in whole["choices"]:
        choices.append(to_json(choice))
        await asyncio.sleep(0)
    rest = to_json({name: value for name, value in whole.items() if name != "choices"})
    return f'{rest[:-1]},"choices":[{",".join(choices)}]}}'.encode()


class WholeAnswer(Response):
    """An answer in one piece, sent no faster than it is read, and within the time of its request."""

    media_type = "application/json"

    def __init__(self, serving: Serving, answer: Answer, body: bytes) -> None:
        super().__init__(body)
        self._serving, self._answer = serving, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a client that has not read it when the time is over is left."""
        seconds = self._serving.config.request_seconds - self._answer.age
        body = memoryview(self.body)
        try:
            async with asyncio.timeout(seconds):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                for begin in range(0, len(body), _PIECE):
                    piece = bytes(body[begin : begin + _PIECE])
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            error = errors.timed_out(self._serving.config.request_seconds)
            scope["state"]["status"] = error.status
            log.warning("a client stopped reading and is left: %s", error.message)


class EventStream(Response):
    """Server-sent events of an answer, each a JSON object, and at last [DONE]; a failure on the way is an event too."""

    def __init__(self, serving: Serving, answer: Answer, writer: Writer, include_usage: bool) -> None:
        super().__init__(
            media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        del self.headers["content-length"]
        self._serving, self._answer, self._writer = serving, answer, writer
        self._include_usage = include_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as tokens come; whatever happens, the request is over when this returns."""
        seconds = self._serving.config.request_seconds - self._answer.age
        try:
            async with asyncio.timeout(seconds):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await until_gone(receive, self._answer, self._events(send))
        except ClientGoneError:
            scope["state"]["status"] = errors.CLIENT_GONE
        except (TimeoutError, ApiError) as cause:
            error = cause if isinstance(cause, ApiError) else errors.timed_out(self._serving.config.request_seconds)
            scope["state"]["status"] = error.status
            await self._fail(send, error)
        finally:
            self._serving.worker.cancel(self._answer)

    async def _events(self, send: Send) -> None:
        text = ""
        await _send(send, self._writer.opening())
        async for batch in self._answer.batches():
            text = "".join(map(self._writer.event, batch))
            if not self._answer.read or len(text) > _PIECE:
                await _send(send, text)
                text = ""
        # The last tokens go out together with what follows them, unless they are what a slow reader left unread.
        text += self._writer.usage() if self._include_usage else ""
        await _send(send, f"{text}data: [DONE]\n\n", more=False)

    async def _fail(self, send: Send, error: ApiError) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await _send(send, event(error.body()), more=False)
        except TimeoutError:
            log.warning("a client stopped reading and is left: %s", error.message)


async def _send(send: Send, events: str, *, more: bool = True) -> None:
    if events:
        await send({"type": "http.response.body", "body": events.encode("utf-8"), "more_body": more})
