"""Runs the application under uvicorn: the address first, then the models, then requests, and an end in good order."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.serve import errors
from instructgpt_fast.serve.app import create_app
from instructgpt_fast.serve.connection import connection_class
from instructgpt_fast.serve.models import Served, load_models
from instructgpt_fast.serve.options import KEY_VARIABLE, ServeConfig
from instructgpt_fast.serve.respond import Serving

log = logging.getLogger("instructgpt_fast.serve")

# Clients keep connections open to ask again; one that is closed too early costs them a failed request.
_KEEP_ALIVE_SECONDS = 75
# After the grace, requests are told that the server is stopping; so long may telling them take.
_LAST_WORDS_SECONDS = 3.0


def run(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError, CheckpointError and BackendError as `serve` does."""
    key = config.api_key()
    # Before the models are loaded: whoever has the port taken should not wait for gigabytes to learn it.
    listener = listen(config.host, config.port)
    with listener:
        models = loaded_elsewhere(config)
        app = create_app(config, models, key)
        url = address(listener)
        for name, served in models.items():
            loaded = served.loaded
            sys.stderr.write(
                f"{name}: {loaded.model.config.num_parameters:,} parameters, context {served.context}, "
                f"{loaded.prompt_format} prompts, {loaded.path}\n"
            )
        if key is None and not _is_loopback(listener):
            sys.stderr.write(
                f"warning: everyone who can reach {url} can use these models; set {KEY_VARIABLE} or --api-key-file to "
                "ask for a key.\n"
            )
        Server(app, config, f"serving on {url} (API at {url}/v1, Ctrl-C stops)\n").run(sockets=[listener])


def loaded_elsewhere(config: ServeConfig) -> dict[str, Served]:
    """`load_models` in a thread that ends with it.

    Every thread that computes keeps helper threads of OpenMP to its end, and where these are more than the cores, they
    no longer spin between two products but sleep: the engines' thread, the one that computes from here on, would need
    twice as long for a step of a small model.
    """
    found: concurrent.futures.Future[dict[str, Served]] = concurrent.futures.Future()

    def load() -> None:
        try:
            found.set_result(load_models(config))
        except BaseException as error:
            found.set_exception(error)

    # A daemon: Ctrl-C ends the process in the middle of loading too.
    thread = threading.Thread(target=load, name="loading", daemon=True)
    thread.start()
    models = found.result()
    thread.join()
    return models


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises ConfigError when it is taken or not of this machine."""
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
            f"serve: cannot listen on {host}:{port}: {cause.strerror or cause}; choose another host or port."
        ) from cause
    return listener


def address(listener: socket.socket) -> str:
    """The URL under which a socket is reached from this machine."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


class Server(uvicorn.Server):
    """uvicorn's server with an end in good order: refuse what is new, let the rest finish, exit with 0."""

    def __init__(self, app: FastAPI, config: ServeConfig, greeting: str = "") -> None:
        """greeting: written to standard error once requests are taken."""
        self._serving: Serving = app.state.serving
        self._greeting = greeting
        self._grace = config.grace_seconds
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
                f"serve: cannot listen any more: {cause.strerror or cause}; choose another port."
            ) from cause
        sys.stderr.write(self._greeting)
        sys.stderr.flush()

    def stop(self) -> None:
        """Begin to end, from any thread or signal: refuse what is new, let the rest go on for the grace.

        A second call ends the grace.
        """
        self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self.should_exit:
            log.warning("stopping now")
            self._end()
            return
        under_way = sum(map(self._serving.worker.in_flight, self._serving.models))
        if under_way:
            log.warning("stopping: answers under way (%d) may take %g seconds more; again ends them now", under_way,
                        self._grace)
        else:
            log.warning("stopping: nothing is under way")
        self.should_exit = self._serving.gate.stopping = True
        self._loop.call_later(self._grace, self._end)

    def _end(self) -> None:
        self._serving.worker.fail_all(errors.stopping())
        self._loop.call_later(_LAST_WORDS_SECONDS, self._leave)

    def _leave(self) -> None:
        # Those that are still open belong to clients that do not read.
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
