"""What our servers have in common: an address taken first, connections with limits, an end in good order."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.serve.connection import ConnectionOptions, connection_class

# Clients keep connections open to ask again; one that is closed too early costs them a failed request.
_KEEP_ALIVE_SECONDS = 75


class ServerOptions(ConnectionOptions, Protocol):
    """What a server must be told beside the limits of its connections."""

    @property
    def log_requests(self) -> bool:
        """Whether each request is logged."""


def listen(host: str, port: int, who: str = "serve") -> socket.socket:
    """A socket bound to the address. Raises ConfigError of `who` when it is taken or not of this machine."""
    try:
        family, _, _, _, bound = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            # A server that has just ended leaves its address in TIME_WAIT; the next one may take it.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(bound)
        except OSError:
            listener.close()
            raise
    except OSError as cause:
        raise ConfigError(
            f"{who}: cannot listen on {host}:{port}: {cause.strerror or cause}; choose another host or port."
        ) from cause
    return listener


def address(listener: socket.socket) -> str:
    """The URL under which a socket is reached from this machine."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


class QuietServer(uvicorn.Server, abc.ABC):
    """uvicorn's server that says when it begins, and ends with exit status 0 when `stop` or a signal asks for it.

    A subclass says what ending means.
    """

    def __init__(self, app: FastAPI, config: ServerOptions, greeting: str = "", who: str = "serve") -> None:
        """greeting: written to standard error once requests are taken. who: begins the messages of errors."""
        self._greeting, self._who = greeting, who
        # Requests are logged where that is asked for; of uvicorn's own steps only what goes wrong.
        super().__init__(uvicorn.Config(
            app, http=connection_class(config), ws="none", loop="asyncio", lifespan="on",
            log_level="info" if config.log_requests else "warning", access_log=config.log_requests,
            proxy_headers=False, server_header=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        ))
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take requests, and say so."""
        try:
            await super().startup(sockets)
        except OSError as cause:  # another server took the port while this one was loading
            raise ConfigError(
                f"{self._who}: cannot listen any more: {cause.strerror or cause}; choose another port."
            ) from cause
        sys.stderr.write(self._greeting)
        sys.stderr.flush()

    def stop(self) -> None:
        """Begin to end, from any thread or signal."""
        self._loop.call_soon_threadsafe(self._stop)

    @abc.abstractmethod
    def _stop(self) -> None:
        """Begin to end, on the event loop."""

    def _leave(self) -> None:
        """Close the connections that are still open: they belong to clients that do not read."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT; uvicorn's own would raise them again at the end, and so spoil the exit status."""
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = (signal.SIGTERM, signal.SIGINT)
        kept = {number: signal.signal(number, lambda number, frame: self.stop()) for number in handlers}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)
