"""The thread that owns every engine: it takes requests, steps the engines in turn, and tells what was drawn.

The event loop calls `submit`, `cancel` and `fail_all`; the thread calls back by `call_soon_threadsafe`, at most once a
round of steps, and gathers the tokens of several rounds where these are short (`Outbox`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from instructgpt_fast.errors import InstructGPTError
from instructgpt_fast.generate.engine import EngineStats
from instructgpt_fast.generate.requests import Request
from instructgpt_fast.serve import errors
from instructgpt_fast.serve.answer import Answer, Token
from instructgpt_fast.serve.errors import ApiError
from instructgpt_fast.serve.models import Served
from instructgpt_fast.serve.outbox import Outbox

log = logging.getLogger("instructgpt_fast.serve")


@dataclass(eq=False)
class _Job:
    """A request in the thread: one engine request a prompt.

    tickets: ticket -> the first of its choices. begun: choices that have a token. open: choices that have no last one.
    """

    served: Served
    requests: Sequence[Request]
    answer: Answer
    tickets: dict[int, int] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    open: int = 0


# What the thread has to tell one answer: that it was accepted (None), its tokens, or its failure.
_News = tuple[Answer, list[Token] | ApiError | None]


class Worker:
    """Engines behind one thread.

    max_rows, max_queue: answers of a model that are decoded, and that may wait, at the same time.
    max_unread: tokens that may wait for a slow reader. on_tokens: called on the loop with what arrives for an answer.
    """

    def __init__(
        self, models: Mapping[str, Served], *, max_rows: int, max_queue: int, max_unread: int,
        on_tokens: Callable[[Answer, list[Token]], None] = lambda answer, tokens: None,
    ) -> None:
        self.models = dict(models)
        self.stats: dict[str, EngineStats] = {name: served.engine.stats() for name, served in models.items()}
        self._capacity = max_rows + max_queue
        self._max_unread = max_unread
        self.on_tokens = on_tokens
        self._loop: asyncio.AbstractEventLoop | None = None
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engines", daemon=True)
        self._stopping = False
        # On the loop: requests that have not ended, and how many answers of each model they are.
        self._live: dict[Answer, _Job] = {}
        self._in_flight = dict.fromkeys(models, 0)
        # In the thread: ticket -> job, for each model, and tokens that the loop does not have yet: far fewer of an
        # answer than may be unread, so that gathering makes no reader too slow.
        self._jobs: dict[str, dict[int, _Job]] = {name: {} for name in models}
        self._outbox = Outbox(max(1, max_unread // 8))

    def start(self) -> None:
        """Start the thread; called on the event loop that it is to tell."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def in_flight(self, model: str) -> int:
        """Answers of a model that are waiting or being decoded."""
        return self._in_flight[model]

    def submit(self, served: Served, requests: Sequence[Request]) -> Answer:
        """Hand a request to the engine of its model; its tokens come into the answer returned.

        requests: one a prompt; the choices of the answer number through them. Raises ApiError 429 when the queue of the
        model is full, 500 when the model has failed.
        """
        choices = sum(request.count for request in requests)
        if served.failure is not None:
            raise errors.model_failed(served.name)
        if choices > self._capacity:
            raise errors.bad_request(
                f"one request may ask for {self._capacity} answers of {served.name!r}, got {choices}; ask for fewer.",
                "n",
            )
        if self._in_flight[served.name] + choices > self._capacity:
            raise errors.too_many(
                f"The queue of {served.name!r} is full: {self._in_flight[served.name]} answers are under way or "
                f"waiting, and {choices} more would be above {self._capacity}; send the request again later."
            )
        job = _Job(served, requests, Answer(served.name, choices, self._max_unread))
        self._live[job.answer] = job
        self._in_flight[served.name] += choices
        self._commands.put(lambda: self._begin(job))
        return job.answer

    def cancel(self, answer: Answer, reason: ApiError | None = None) -> None:
        """End a request wherever it is: its rows and pages are free with the engine's next step. Ended ones stay."""
        job = self._live.pop(answer, None)
        if job is not None:
            self._in_flight[answer.model] -= answer.choices
            answer.fail(reason or ApiError(errors.CLIENT_GONE, "The client has gone."))
            self._commands.put(lambda: self._drop(job))

    def fail_all(self, reason: ApiError) -> None:
        """End every request that has not ended yet."""
        for answer in list(self._live):
            self.cancel(answer, reason)

    async def stop(self) -> None:
        """End every request and the thread."""
        self.fail_all(errors.stopping())
        self._commands.put(self._set_stopping)
        await asyncio.to_thread(self._thread.join)

    # From here on: in the thread.

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._obey(wait=not any(self._busy(served) for served in self.models.values()))
                begun = time.monotonic()
                for served in self.models.values():
                    if self._busy(served):
                        self._step(served)
                # The next round will take about as long as this one.
                now = time.monotonic()
                due = self._outbox.due(now + (now - begun))
                if due:
                    self._tell(due)
        except Exception as error:  # a mistake of our own: nobody may wait for an answer that never comes
            for served in self.models.values():
                self._break_down(served, error)
            # Those whose request this thread has not yet taken wait too.
            self._call_on_loop(self.fail_all, errors.internal_error())

    def _busy(self, served: Served) -> bool:
        return served.failure is None and served.engine.busy

    def _obey(self, *, wait: bool) -> None:
        with contextlib.suppress(queue.Empty):
            self._commands.get(block=wait)()
            while True:
                self._commands.get_nowait()()

    def _step(self, served: Served) -> None:
        try:
            drawn = served.engine.step()
        except Exception as error:  # broken weights, or out of memory: this model is lost, and no other
            self._break_down(served, error)
            return
        now = time.monotonic()
        jobs = self._jobs[served.name]
        for item in drawn:
            job = jobs.get(item.ticket)
            if job is None:
                continue
            choice, last = job.tickets[item.ticket] + item.index, item.finish_reason is not None
            self._outbox.add(job.answer, Token(choice, item, now), urgent=last or choice not in job.begun)
            job.begun.add(choice)
            if last:
                job.open -= 1
                if job.open == 0:
                    self._forget(job)
        self.stats[served.name] = served.engine.stats()

    def _begin(self, job: _Job) -> None:
        served, choices = job.served, 0
        if served.failure is not None:
            self._tell([(job.answer, errors.model_failed(served.name))])
            return
        try:
            for request in job.requests:
                ticket = served.engine.submit(request)
                job.tickets[ticket] = choices
                self._jobs[served.name][ticket] = job
                choices += request.count
        except InstructGPTError as error:
            self._drop(job)
            self._tell([(job.answer, errors.bad_request(str(error)))])
            return
        except Exception as error:  # a mistake of our own about one request: the others go on
            log.error("a request to the model %r could not be taken", served.name, exc_info=error)
            self._drop(job)
            self._tell([(job.answer, errors.internal_error())])
            return
        job.open = choices
        self.stats[served.name] = served.engine.stats()
        self._tell([(job.answer, None)])

    def _drop(self, job: _Job) -> None:
        self._outbox.drop(job.answer)
        for ticket in self._forget(job):
            if job.served.failure is None:
                job.served.engine.cancel(ticket)
        if job.served.failure is None:
            self.stats[job.served.name] = job.served.engine.stats()

    def _forget(self, job: _Job) -> list[int]:
        jobs = self._jobs[job.served.name]
        return [ticket for ticket in job.tickets if jobs.pop(ticket, None) is not None]

    def _break_down(self, served: Served, error: BaseException) -> None:
        if served.failure is not None:
            return
        log.error("the model %r has failed and serves no more requests", served.name, exc_info=error)
        served.failure = f"{type(error).__name__}: {error}"
        broken = set(self._jobs[served.name].values())
        self._jobs[served.name].clear()
        for job in broken:
            self._outbox.drop(job.answer)
        self._tell([(job.answer, errors.model_failed(served.name)) for job in broken])

    def _set_stopping(self) -> None:
        self._stopping = True

    def _tell(self, news: Sequence[_News]) -> None:
        self._call_on_loop(self._deliver, news)

    def _call_on_loop(self, function: Callable[[Any], None], argument: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(function, argument)

    # On the loop again.

    def _deliver(self, news: Sequence[_News]) -> None:
        for answer, what in news:
            job = self._live.get(answer)
            if job is None:
                continue  # cancelled while this was under way
            if what is None:
                answer.accept()
            elif isinstance(what, ApiError):
                answer.fail(what)
            else:
                self.on_tokens(answer, what)
                if not answer.add(what, errors.slow_reader(self._max_unread)):
                    self._commands.put(lambda job=job: self._drop(job))  # type: ignore[misc]
            if answer.ended:
                del self._live[answer]
                self._in_flight[answer.model] -= answer.choices
