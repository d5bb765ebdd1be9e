"""The thread that samples answers while people label: prompts in their order, those that have answers never again."""

from __future__ import annotations

import concurrent.futures
import logging
import sys
import threading
from typing import Any

from instructgpt_fast.errors import DataError, InstructGPTError
from instructgpt_fast.label.answers import AnswerSource, Asked, StoppedError, load_checkpoints, sampling_of
from instructgpt_fast.label.options import LabelConfig
from instructgpt_fast.label.store import Store

log = logging.getLogger("instructgpt_fast.label")


class Sampler:
    """Samples the answers that prompts of a store lack, in a thread of its own."""

    def __init__(self, store: Store, config: LabelConfig) -> None:
        """Raises ConfigError for options of sampling that cannot be served."""
        self._store, self._config = store, config
        sampling_of(config)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Written by the thread, read by the routes; each a whole value.
        self._state, self._failure = "none", ""
        self._waiting = self._answered = self._problems = 0

    def state(self) -> dict[str, Any]:
        """How far it is: state none, loading, running, done, stopped or failed; prompts waiting, answered, left out."""
        return {
            "state": self._state, "waiting": self._waiting, "answered": self._answered, "problems": self._problems,
            **({"failure": self._failure} if self._failure else {}),
        }

    def start(self) -> None:
        """Load the checkpoints, where prompts wait for answers, and begin. Raises CheckpointError and BackendError."""
        prompts = self._store.unanswered() if self._config.checkpoints else []
        self._waiting = len(prompts)
        if not prompts:
            return
        self._state = "loading"
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        # Loaded by the thread that computes: each thread that does keeps helpers of its own to its end. A daemon, so
        # that Ctrl-C ends the process in the middle of loading too.
        self._thread = threading.Thread(target=self._run, args=(prompts, ready), name="sampling", daemon=True)
        self._thread.start()
        ready.result()

    def stop(self) -> None:
        """End within a step; what is stored stays, the rest is sampled by the next server."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def wait(self) -> None:
        """Wait until every prompt has been looked at."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, prompts: list[tuple[int, Any]], ready: concurrent.futures.Future[None]) -> None:
        try:
            source = AnswerSource(load_checkpoints(self._config), self._config)
        except BaseException as error:
            self._state, self._failure = "failed", str(error)
            ready.set_exception(error)
            return
        self._state = "running"
        ready.set_result(None)
        try:
            self._sample(source, prompts)
            self._state = "done"
            sys.stderr.write(f"sampled answers to {self._answered:,} prompts, {self._problems:,} have none\n")
        except StoppedError:
            self._state = "stopped"
        except Exception as error:  # labelling goes on with the answers that are there
            known = isinstance(error, InstructGPTError)
            self._state, self._failure = "failed", str(error) if known else f"{type(error).__name__}: {error}"
            log.error("sampling has ended: %s", self._failure, exc_info=None if known else error)

    def _sample(self, source: AnswerSource, prompts: list[tuple[int, Any]]) -> None:
        asked: list[Asked] = []
        for identity, prompt in prompts:
            if self._stop.is_set():
                raise StoppedError
            try:
                asked.append(source.asked(identity, prompt))
            except DataError as error:
                self._leave_out(identity, str(error))
        if not asked:
            return
        source.prepare(max(len(tokens) for one in asked for tokens in one.tokens))
        at_once = max(1, self._config.batch_size * len(self._config.checkpoints) // self._config.answers_per_prompt)
        for begin in range(0, len(asked), at_once):
            group = asked[begin : begin + at_once]
            source.draw(group, self._stop.is_set)
            for one in group:
                answers = one.in_order()
                if len(answers) >= 2:
                    self._store.add_answers(one.id, answers)
                    self._answered += 1
                    self._waiting -= 1
                else:
                    self._leave_out(one.id, f"the checkpoints gave {len(answers)} different answers, 2 are needed")

    def _leave_out(self, identity: int, why: str) -> None:
        log.warning("prompt %d has no answers to rank: %s", identity, why)
        self._store.set_problem(identity, why)
        self._problems += 1
        self._waiting -= 1
