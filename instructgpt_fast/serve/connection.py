"""A connection that must say what it wants and read what it is told, so that idle sockets do not use the server up.

uvicorn waits for ever for the head of a request and for a client to read what is left of its answer.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Protocol

from uvicorn.protocols.http.h11_impl import H11Protocol


class ConnectionOptions(Protocol):
    """The limits of connections; the fields of `ServeConfig` of these names."""

    @property
    def max_connections(self) -> int:
        """Most connections open."""

    @property
    def request_seconds(self) -> float:
        """Longest time for a client to read its answer."""

    @property
    def body_seconds(self) -> float:
        """Longest time for the head of a request to arrive."""


def connection_class(config: ConnectionOptions) -> type[Connection]:
    """The class of the connections of a server with these limits."""
    return type("LimitedConnection", (Connection,), {"limits": config})


class Connection(H11Protocol):
    """uvicorn's connection, one of `max_connections`, with a time for the head of a request and one for reading."""

    limits: ClassVar[ConnectionOptions]

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many."""
        super().connection_made(transport)
        # Writing pauses as soon as the system takes no more, so that a client which does not read is always noticed.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.limits.max_connections:
            transport.abort()
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; whoever has begun a request has to go on with it."""
        super().data_received(data)
        self._expect_head()

    def pause_writing(self) -> None:
        """The client does not read: it has as long as a request may take."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.limits.request_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read everything."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()

    def _expect_head(self) -> None:
        between = self.cycle is None or self.cycle.response_complete
        if between and self._head is None:
            self._head = self.loop.call_later(self.limits.body_seconds, self.transport.close)
        elif not between and self._head is not None:
            self._head.cancel()
            self._head = None
