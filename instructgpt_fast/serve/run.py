"""Runs the application under uvicorn: the address first, then the models, then requests, and an end in good order."""

from __future__ import annotations

import concurrent.futures
import logging
import sys
import threading

from fastapi import FastAPI

from instructgpt_fast.serve import errors
from instructgpt_fast.serve.app import create_app
from instructgpt_fast.serve.models import Served, load_models
from instructgpt_fast.serve.options import KEY_VARIABLE, ServeConfig
from instructgpt_fast.serve.respond import Serving
from instructgpt_fast.serve.server import QuietServer, address, is_loopback, listen

__all__ = ["Server", "address", "listen", "run"]

log = logging.getLogger("instructgpt_fast.serve")

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
        if key is None and not is_loopback(listener):
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


class Server(QuietServer):
    """A server of models with an end in good order: refuse what is new, let the rest finish, exit with 0."""

    def __init__(self, app: FastAPI, config: ServeConfig, greeting: str = "") -> None:
        """greeting: written to standard error once requests are taken."""
        self._serving: Serving = app.state.serving
        self._grace = config.grace_seconds
        super().__init__(app, config, greeting)

    def _stop(self) -> None:
        """Refuse what is new, let the rest go on for the grace; a second call ends the grace."""
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
