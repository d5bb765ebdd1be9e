"""Tiny models under a real server on 127.0.0.1, in a thread of the test: what the tests of the server share."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import openai
import torch

from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.model import GPT, GPTConfig
from instructgpt_fast.serve.app import create_app
from instructgpt_fast.serve.models import load_models
from instructgpt_fast.serve.options import ServeConfig
from instructgpt_fast.serve.respond import Serving
from instructgpt_fast.serve.run import Server, address, listen
from instructgpt_fast.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = 256
TEXT = ["The quick brown fox jumps over the lazy dog, and the cat sat on the mat: café, 東京, 😀!"] * 4


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXT, 320)


def random_model(
    seed: int = 0, *, ends: bool = True, end_logit: float = 2.0, readable: bool = True,
    context: int = CONTEXT,
) -> GPT:
    """A model whose answers differ by seed and prompt.

    ends: whether some token ends an answer, one in about fifteen with the end_logit given here, or none does.
    readable: whether every token is text, or parts of characters are drawn too.
    """
    torch.manual_seed(seed)
    shape = GPTConfig(vocab_size=tokenizer().vocab_size, n_positions=context, n_layer=2, n_head=2, d_model=32)
    model = GPT(shape)
    with torch.no_grad():
        model.ln_f.weight.fill_(4.0)
        # A hidden number that is always 1, through which single tokens get a bonus or a malus on their logits.
        model.ln_f.weight[0], model.ln_f.bias[0] = 0.0, 1.0
        model.wte.weight[:, 0] = 0.0
        for token in range(shape.vocab_size):
            if token in tokenizer().special_ids or (readable and not _is_text(tokenizer().bytes_of(token))):
                model.wte.weight[token, 0] = -30.0
        model.wte.weight[tokenizer().eos_id, 0] = end_logit if ends else -30.0
    return model.eval()


def _is_text(data: bytes) -> bool:
    try:
        return data.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def save(folder: Path, name: str, *, prompt_format: str = "dialogue", **options: Any) -> str:
    """A checkpoint of a random model."""
    model = random_model(**options)
    return str(save_checkpoint(
        folder / name, model=model, tokenizer=tokenizer(), prompt_format=prompt_format, stage="sft",  # type: ignore[arg-type]
    ))


@dataclass
class Running:
    """A server that serves: its address, and its inside for what a test must see there."""

    url: str
    serving: Serving
    server: Server
    key: str | None

    @cached_property
    def client(self) -> openai.OpenAI:
        """OpenAI's client as everyone uses it; without retries, so that a test sees each answer."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=self.key or "unused", max_retries=0, timeout=120.0,
        )

    def idle(self) -> bool:
        """Whether no engine has anything to do, every row is free and every page free or kept for prompts."""
        return all(
            self.serving.worker.in_flight(name) == 0
            and stats.waiting == stats.prefilling == stats.active == 0
            and stats.free_pages + stats.cached_pages == stats.pages
            for name, stats in self.serving.worker.stats.items()
        )

    def wait_until_idle(self) -> None:
        """Wait until rows and pages are free; fails where they never are."""
        wait_until(self.idle, lambda: f"the engines are not idle: {self.serving.worker.stats}")


def wait_until(holds: Callable[[], bool], told: Callable[[], str], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, told()
        time.sleep(0.005)


@contextlib.contextmanager
def running(*checkpoints: str, key: str | None = None, **options: Any) -> Iterator[Running]:
    """A server of these checkpoints on a free port, stopped at the end."""
    config = ServeConfig(checkpoint=checkpoints, port=0, device="cpu", **{"grace_seconds": 0.0, **options})
    app = create_app(config, load_models(config), None if key is None else key.encode())
    listener = listen(config.host, config.port)
    server = Server(app, config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    url = address(listener)
    thread.start()
    wait_until(lambda: server.started, lambda: "the server does not start")
    try:
        yield Running(url, app.state.serving, server, key)
    finally:
        server.stop()
        thread.join(120)
        assert not thread.is_alive(), "the server does not end"


class Process:
    """`instructgpt-fast serve` as a user starts it, in a process of its own."""

    def __init__(self, log: Path, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "instructgpt_fast", "serve", "--port", "0", "--device", "cpu", *words]
        self._log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)

    @property
    def told(self) -> str:
        """What it wrote so far."""
        return self._log.read_text()

    def url(self) -> str:
        """Its address, once it serves."""
        wait_until(lambda: "serving on" in self.told or self.process.poll() is not None, lambda: self.told)
        found = re.search(r"serving on (http://\S+)", self.told)
        assert found, self.told
        return found[1]


@contextlib.contextmanager
def process(log: Path, checkpoint: str, *words: str) -> Iterator[Process]:
    """A server of one checkpoint with further words of the command line; killed at the end if it still runs."""
    started = Process(log, "--checkpoint", checkpoint, *words)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait(30)
