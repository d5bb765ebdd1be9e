"""What the server counts and times, as text for Prometheus.

Not covered: nothing is kept on disk; counters begin at 0 with the process, as Prometheus expects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from instructgpt_fast.generate import EngineStats
from instructgpt_fast.serve.answer import Answer, Token

_PREFIX = "instructgpt_fast_"
# From a small model's step on a GPU to a large one's on a CPU.
_BETWEEN_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_FIRST_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_ENDPOINTS = frozenset({"/", "/health", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions"})
# Names of engine numbers -> what they are.
_GAUGES = {
    "waiting": "answers waiting for a row",
    "prefilling": "answers whose prompt is being read",
    "active": "answers being decoded",
    "rows": "answers that can be decoded at the same time",
    "pages": "pages of keys and values in all",
    "free_pages": "pages that nobody uses",
    "cached_pages": "pages kept for prompts that begin alike, used by nobody now",
}
_COUNTERS = {
    "prompt_tokens": "tokens of prompts taken by the engine",
    "shared_prompt_tokens": "of these, tokens whose keys and values were there already",
    "drawn_tokens": "tokens drawn by the engine",
    "preempted": "times an answer gave its pages to others and waited",
}


class Metrics:
    """Counters and times of one server."""

    def __init__(self, stats: Mapping[str, EngineStats]) -> None:
        """stats: the newest numbers of each engine by the name of its model, read when they are asked for."""
        self.registry = CollectorRegistry()
        self.registry.register(_Engines(stats))
        self._requests = Counter(
            f"{_PREFIX}requests", "requests answered; 499 is a client that left", ("endpoint", "model", "status"),
            registry=self.registry,
        )
        self._first = Histogram(
            f"{_PREFIX}time_to_first_token_seconds", "from a request to its first token", ("model",),
            buckets=_FIRST_SECONDS, registry=self.registry,
        )
        self._between = Histogram(
            f"{_PREFIX}time_between_tokens_seconds", "between two tokens of an answer", ("model",),
            buckets=_BETWEEN_SECONDS, registry=self.registry,
        )

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)

    def count(self, path: str, model: str, status: int) -> None:
        """Count a request. model: "" where none was found; a name from a request never becomes a label."""
        endpoint = path if path in _ENDPOINTS else "/v1/models/{id}" if path.startswith("/v1/models/") else "other"
        self._requests.labels(endpoint, model, str(status)).inc()

    def on_tokens(self, answer: Answer, tokens: list[Token]) -> None:
        """Time the tokens of an answer."""
        if not answer.newest:
            self._first.labels(answer.model).observe(tokens[0].time - answer.asked)
        between = self._between.labels(answer.model)
        for token in tokens:
            before = answer.newest.get(token.choice)
            if before is not None:
                between.observe(token.time - before)
            answer.newest[token.choice] = token.time


class _Engines(Collector):
    """The engines' own numbers, taken as they are at the time of asking."""

    def __init__(self, stats: Mapping[str, EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        kinds: tuple[tuple[Any, dict[str, str]], ...] = (
            (GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)
        )
        for family, names in kinds:
            for name, meaning in names.items():
                metric = family(f"{_PREFIX}engine_{name}", meaning, labels=("model",))
                for model, stats in self._stats.items():
                    metric.add_metric((model,), getattr(stats, name))
                yield metric


class CountRequests:
    """ASGI middleware that counts every request by what became of it."""

    def __init__(self, app: ASGIApp, count: Callable[[str, str, int], None]) -> None:
        self._app, self._count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and remember the status of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # Handlers put "model" here, and "status" where it differs from what was sent.
        told = scope.setdefault("state", {})
        try:
            await self._app(scope, receive, noting)
        finally:
            self._count(scope["path"], told.get("model", ""), told.get("status", status))
