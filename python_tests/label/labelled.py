"""Databases with prompts and answers made without a model, and real servers over them: what these tests share."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from instructgpt_fast.label.form import FIELD_NAMES
from instructgpt_fast.label.options import LabelConfig
from instructgpt_fast.label.run import Server, application, open_store
from instructgpt_fast.label.store import Answer, Store
from instructgpt_fast.serve.server import address, listen

ROOT = Path(__file__).resolve().parents[2]


def fill(store: Store, prompts: int = 3, answers: int = 4) -> None:
    """Give a store prompts and answers of two checkpoints; the last prompt is a dialogue."""
    texts: list[Any] = [f"Question {place}: what is the sea?" for place in range(prompts - 1)]
    texts.append([
        {"role": "user", "content": "Who was Jane Austen?"}, {"role": "assistant", "content": "A novelist."},
        {"role": "user", "content": "Name one of her novels."},
    ])
    store.add_prompts(texts)
    for prompt, _ in store.unanswered():
        store.add_answers(prompt, [
            Answer(f"Answer {place} to prompt {prompt}.\nIt has a second line.", f"runs/model-{place % 2}", 100 + place)
            for place in range(answers)
        ])


def filled(path: Path, prompts: int = 3, answers: int = 4) -> str:
    """The path of a new database with prompts and answers."""
    store = Store(path)
    fill(store, prompts, answers)
    store.close()
    return str(path)


def ranking(task: Mapping[str, Any], order: str = "", overall: int = 4, yes: bool = False) -> dict[str, Any]:
    """A finished payload for a task: its answers by id, or in `order` such as "2 0=1 3" (places by id)."""
    ids = sorted((answer["id"] for answer in task["answers"]), key=int)
    groups = [[ids[int(place)] for place in group.split("=")] for group in order.split()] or [[one] for one in ids]
    rating = {"overall": overall, "fields": dict.fromkeys(FIELD_NAMES, yes)}
    return {"ratings": dict.fromkeys(ids, rating), "ranking": groups, "note": ""}


@dataclass
class Client:
    """What the page asks of a server, for one labeler."""

    http: httpx.Client
    labeler: int

    def task(self, kind: str = "ranking") -> Any:
        """The next task; None when none is left."""
        found = self.http.get("/api/task", params={"labeler": self.labeler, "kind": kind})
        return found.raise_for_status().json()["task"]

    def again(self, identity: int) -> Any:
        """A task by its id."""
        found = self.http.get(f"/api/tasks/{identity}", params={"labeler": self.labeler})
        return found.raise_for_status().json()

    def put(self, identity: int, revision: int, payload: Any, status: str = "done") -> httpx.Response:
        """Save a label."""
        return self.http.put(f"/api/tasks/{identity}", json={
            "labeler": self.labeler, "revision": revision, "payload": payload, "status": status,
        })


def signed_in(http: httpx.Client, name: str) -> Client:
    """A labeler by name."""
    return Client(http, http.post("/api/labelers", json={"name": name}).raise_for_status().json()["id"])


@dataclass
class Running:
    """A server in a thread of the test."""

    url: str
    store: Store
    http: httpx.Client


@contextlib.contextmanager
def running(database: str | Path, **options: Any) -> Iterator[Running]:
    """A server of a database on a free port of 127.0.0.1, stopped at the end."""
    config = LabelConfig(database=str(database), port=0, **options)
    store = open_store(config)
    listener = listen(config.host, config.port)
    server = Server(application(config, store), config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    url = address(listener)
    thread.start()
    wait_until(lambda: server.started, lambda: "the server does not start")
    try:
        with httpx.Client(base_url=url, timeout=60.0) as http:
            yield Running(url, store, http)
    finally:
        server.stop()
        thread.join(60)
        store.close()
        assert not thread.is_alive(), "the server does not end"


def wait_until(holds: Callable[[], bool], told: Callable[[], str], seconds: float = 60.0) -> None:
    """Wait for something; fails where it never comes."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, told()
        time.sleep(0.01)


class Process:
    """`instructgpt-fast label` as a user starts it, in a process of its own."""

    def __init__(self, log: Path, database: str | Path, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "instructgpt_fast", "label", "--database", str(database), "--port", "0", *words],
                env=environment, stdout=file, stderr=file,
            )

    @property
    def told(self) -> str:
        """What it wrote so far."""
        return self._log.read_text()

    def url(self) -> str:
        """Its address, once it serves."""
        wait_until(lambda: "labelling on" in self.told or self.process.poll() is not None, lambda: self.told)
        found = re.search(r"labelling on (http://\S+)", self.told)
        assert found, self.told
        return found[1]


@contextlib.contextmanager
def process(log: Path, database: str | Path, *words: str) -> Iterator[Process]:
    """A server of a database with further words of the command line; killed at the end if it still runs."""
    started = Process(log, database, *words)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait(30)
