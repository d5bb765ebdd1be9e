"""Runs the labelling server: the address and the database first, then requests, and an end in good order."""

from __future__ import annotations

import logging
import sys

from fastapi import FastAPI

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.label.app import Labelling, create_app
from instructgpt_fast.label.options import LabelConfig
from instructgpt_fast.label.store import Store
from instructgpt_fast.serve.server import QuietServer, address, is_loopback, listen

log = logging.getLogger("instructgpt_fast.label")

# Requests take milliseconds; whoever has not read the answer after this is not reading.
_GRACE_SECONDS = 5.0


def open_store(config: LabelConfig) -> Store:
    """The store that the options ask for. Raises ConfigError and DataError as `Store` does."""
    return Store(
        config.database, kinds=config.kinds, labels_per_task=config.labels_per_task,
        lease_seconds=60.0 * config.lease_minutes, ratings=config.ratings,
    )


def application(config: LabelConfig, store: Store) -> FastAPI:
    """The application of the options: their prompts are in the store, and answers are being sampled.

    Raises ConfigError where there are no prompts, DataError for prompts that cannot be read, CheckpointError and
    BackendError for checkpoints that cannot be used.
    """
    add_prompts(store, config)
    if not store.any_prompts():
        raise ConfigError(
            f"label: there must be prompts to label, got none in {store.path} and no --prompts; name a jsonl of them."
        )
    if not config.checkpoints:
        waiting = len(store.unanswered()) if "ranking" in config.kinds else 0
        if waiting:
            sys.stderr.write(f"{waiting:,} prompts have no answers to rank; --checkpoints samples them.\n")
        return create_app(config, store)
    # Torch comes with it: a database that has its prompts and answers is served without, and so at once.
    from instructgpt_fast.label.sampling import Sampler

    sampler = Sampler(store, config)
    sampler.start()
    return create_app(config, store, sampler.state, on_end=sampler.stop)


def add_prompts(store: Store, config: LabelConfig) -> None:
    """Add the prompts of the options' file that the store does not have yet. Raises DataError with file and line."""
    if config.prompts is None:
        return
    from instructgpt_fast.data import Prompt, read_jsonl

    found = read_jsonl(config.prompts, Prompt, on_bad_line=config.on_bad_line)
    added = store.add_prompts(prompt.prompt for prompt in found)
    told = f"{added:,} of {len(found):,} prompts in {config.prompts} are new\n"
    if found.skipped:
        told += f"left out {len(found.skipped)} lines that cannot be read, the first: {found.skipped[0]}\n"
    sys.stderr.write(told)


def run(config: LabelConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError, DataError and CheckpointError as `label` does."""
    # First: whoever has the port taken should not wait for models to learn it.
    listener = listen(config.host, config.port, "label")
    with listener:
        store = open_store(config)
        try:
            url = address(listener)
            if not is_loopback(listener):
                sys.stderr.write(
                    f"warning: everyone who can reach {url} can label and read everything there, under any name.\n"
                )
            app = application(config, store)
            Server(app, config, f"labelling on {url} (Ctrl-C stops)\n").run(sockets=[listener])
        finally:
            store.close()


class Server(QuietServer):
    """A server of the page that refuses what is new when it stops, answers what it has begun, and exits with 0."""

    def __init__(self, app: FastAPI, config: LabelConfig, greeting: str = "") -> None:
        """greeting: written to standard error once requests are taken."""
        self._labelling: Labelling = app.state.labelling
        super().__init__(app, config, greeting, who="label")

    def _stop(self) -> None:
        if self.should_exit:
            self._leave()
            return
        log.warning("stopping: what was answered is saved")
        self.should_exit = self._labelling.gate.stopping = True
        self._loop.call_later(_GRACE_SECONDS, self._leave)
