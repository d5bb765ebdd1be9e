"""What is labelled, by how many, where it is kept, how answers are sampled, and the limits of the server."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from instructgpt_fast.config import Options, options_class
from instructgpt_fast.label.form import ANSWERS_HIGH, ANSWERS_LOW


@options_class()
class LabelConfig(Options):
    """Prompts to label and checkpoints that answer them, the database of labels, and the server of the page."""

    stage: ClassVar[str] = "label"

    database: str
    """SQLite file of prompts, answers and labels; made when it is missing, gone on with when it is there."""
    checkpoints: tuple[str, ...] = ()
    """Checkpoint or run directory of a language model, or several, whose answers are ranked; none samples nothing."""
    prompts: str | None = None
    """jsonl of {"prompt"} or {"messages"} to label; those already in the database stay as they are."""
    kinds: tuple[Literal["ranking", "demonstration"], ...] = ("ranking", "demonstration")
    """What is labelled: rankings of answers, demonstrations, or both."""
    answers_per_prompt: int = 4
    """Answers sampled for each prompt, K: 4 to 9 in the paper [P]; spread evenly over the checkpoints."""
    labels_per_task: int = 1
    """How many labelers should finish each task; agreement needs 2 or more."""
    ratings: Literal["all", "overall", "none"] = "all"
    """What a finished ranking must rate of each answer: the whole form as in the paper [P], its overall quality alone,
    or nothing."""
    lease_minutes: float = 30.0
    """How long a task that a labeler opened or saved last is kept from others."""
    temperature: float = 1.0
    """Of sampling the answers; 0 takes the likeliest token and gives one answer a checkpoint."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities sum to this."""
    max_new_tokens: int = 256
    """Most tokens of an answer."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer and are not part of it."""
    seed: int = 0
    """Of sampling: equal seeds give equal answers on the CPU, in whatever order prompts come."""
    redraws: int = 3
    """How often an answer that is empty or equal to another is drawn again before the prompt does with fewer."""
    batch_size: int = 32
    """Answers of a checkpoint decoded at the same time."""
    on_bad_line: Literal["error", "skip"] = "error"
    """A malformed line of the prompts stops with its place, or is left out and counted."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Type of weights and activations."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" takes the GPU when every op runs on it."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every address of this machine, and everyone who reaches it may label."""
    port: int = 8100
    """Port to listen on; 0 takes a free one and says which."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names by which browsers may call this machine; localhost and IP addresses always may."""
    max_request_bytes: int = 1 << 20
    """Largest body of a request; a larger one is refused with 413."""
    max_requests: int = 256
    """Requests under way at the same time; what comes beyond is refused with 429."""
    max_connections: int = 512
    """Connections open at the same time; one more is closed at once."""
    request_seconds: float = 60.0
    """Longest time for a client to read its answer."""
    body_seconds: float = 30.0
    """Longest time in which the head of a request must arrive, and then its body."""
    log_requests: bool = False
    """Write a line for each request (address, path, status; never its text) to standard error."""

    def check(self) -> None:
        """Refuse numbers out of range and sampling without prompts to answer."""
        super().check()
        self.require("kinds must name at least one kind, none twice",
                     bool(self.kinds) and len(set(self.kinds)) == len(self.kinds), kinds=self.kinds)
        self.require("database must be a file name", bool(self.database.strip()), database=self.database)
        self.require(f"answers_per_prompt must be in 2..{ANSWERS_HIGH} (the paper: {ANSWERS_LOW}..{ANSWERS_HIGH})",
                     2 <= self.answers_per_prompt <= ANSWERS_HIGH, answers_per_prompt=self.answers_per_prompt)
        self.require("port must be in 0..65535", 0 <= self.port <= 65535, port=self.port)
        for name in ("labels_per_task", "batch_size", "max_new_tokens", "max_request_bytes", "max_requests",
                     "max_connections"):
            self.require(f"{name} must be at least 1", getattr(self, name) >= 1, **{name: getattr(self, name)})
        for name in ("lease_minutes", "request_seconds", "body_seconds", "top_p"):
            self.require(f"{name} must be positive", getattr(self, name) > 0, **{name: getattr(self, name)})
        for name in ("redraws", "temperature", "seed"):
            self.require(f"{name} must not be negative", getattr(self, name) >= 0, **{name: getattr(self, name)})
        self.require("top_p must be in (0, 1]", self.top_p <= 1.0, top_p=self.top_p)
        self.require(
            "temperature must be above 0 with fewer than two checkpoints, for each gives one answer at 0 and a ranking "
            "needs two", self.temperature > 0 or len(self.checkpoints) != 1, temperature=self.temperature,
            checkpoints=self.checkpoints,
        )
        names = [checkpoint.rstrip("/") for checkpoint in self.checkpoints]
        self.require("checkpoints must differ", len(set(names)) == len(names), checkpoints=self.checkpoints)
        for host in self.allowed_hosts:
            self.require("allowed_hosts must be names like labels.example.org, without port or path",
                         re.fullmatch(r"[A-Za-z0-9_.-]+", host) is not None, allowed_hosts=host)
