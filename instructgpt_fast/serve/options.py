"""What a server serves, on which address, and every limit it keeps."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar, Literal

from instructgpt_fast.config import Options, options_class
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.files import run_name

KEY_VARIABLE = "INSTRUCTGPT_FAST_API_KEY"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


@options_class()
class ServeConfig(Options):
    """Checkpoints to serve over HTTP, and the limits of the server."""

    stage: ClassVar[str] = "serve"

    checkpoint: tuple[str, ...]
    """Checkpoint or run directory of a language model, or several; clients choose one by name."""
    names: tuple[str, ...] = ()
    """Names of the models, one a checkpoint; none takes the names of the folders."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every address of this machine."""
    port: int = 8000
    """Port to listen on; 0 takes a free one and says which."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Type of weights and activations."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" takes the GPU when every op runs on it."""
    max_rows: int = 32
    """Answers of a model decoded at the same time."""
    cache_tokens: int | None = None
    """Room for keys and values in tokens, each model; None is max_rows times the context."""
    max_queue: int = 128
    """Answers of a model that may wait for a row; what comes beyond is refused with 429."""
    max_choices: int = 32
    """Most answers in one request: its prompts times n."""
    max_new_tokens: int | None = None
    """Most tokens that a request may ask for in an answer; None is the model's context."""
    max_request_bytes: int = 1 << 20
    """Largest body of a request; a larger one is refused with 413."""
    max_requests: int = 512
    """Requests under way at the same time, in any state; what comes beyond is refused with 429."""
    max_connections: int = 800
    """Connections open at the same time; one more is closed at once. Each needs a file of those that the system allows
    (ulimit -n)."""
    max_unread_tokens: int = 4096
    """Tokens of a request that may wait for a client that reads slowly; beyond, the request is cancelled."""
    request_seconds: float = 600.0
    """Longest time from a request's arrival, its body included, to the last byte of its answer."""
    body_seconds: float = 30.0
    """Longest time in which the head of a request must arrive, and then its body."""
    grace_seconds: float = 30.0
    """On SIGTERM or Ctrl-C: how long requests that are under way may go on."""
    api_key_file: str | None = None
    """File whose only line is the key that clients must send; None takes INSTRUCTGPT_FAST_API_KEY from the environment,
    or asks for no key where that is not set."""
    allowed_origins: tuple[str, ...] = ()
    """Web origins whose pages may call this server, such as https://example.org; its own page needs none."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names by which clients without a key may call this machine's own address; localhost and IP addresses
    always may. Where some are given, clients from elsewhere must use them too."""
    log_requests: bool = False
    """Write a line for each request (address, path, status; never its text) to standard error."""

    def check(self) -> None:
        """Refuse limits that serve nobody, and names that are malformed, doubled or too few."""
        super().check()
        self.require("give at least one checkpoint", bool(self.checkpoint), checkpoint=self.checkpoint)
        self.require("port must be in 0..65535", 0 <= self.port <= 65535, port=self.port)
        for name in ("max_rows", "max_choices", "max_request_bytes", "max_requests", "max_connections",
                     "max_unread_tokens"):
            self.require(f"{name} must be at least 1", getattr(self, name) >= 1, **{name: getattr(self, name)})
        for name in ("cache_tokens", "max_new_tokens"):
            value = getattr(self, name)
            self.require(f"{name} must be at least 1 or none", value is None or value >= 1, **{name: value})
        for name in ("request_seconds", "body_seconds"):
            self.require(f"{name} must be positive", getattr(self, name) > 0, **{name: getattr(self, name)})
        for name in ("max_queue", "grace_seconds"):
            self.require(f"{name} must not be negative", getattr(self, name) >= 0, **{name: getattr(self, name)})
        self._check_names()
        for origin in self.allowed_origins:
            self.require(
                "allowed_origins must be '*' or like https://example.org, without a path",
                origin == "*" or re.fullmatch(r"https?://[^/\s]+", origin) is not None, allowed_origins=origin,
            )
        for host in self.allowed_hosts:
            self.require(
                "allowed_hosts must be names like models.example.org, without port or path",
                re.fullmatch(r"[A-Za-z0-9_.-]+", host) is not None, allowed_hosts=host,
            )

    def model_names(self) -> tuple[str, ...]:
        """The names by which clients choose, one a checkpoint, in the same order."""
        return self.names or tuple(map(run_name, self.checkpoint))

    def api_key(self) -> bytes | None:
        """The key that clients must send, or None for a server that is open to whoever reaches it.

        Raises ConfigError for a file that cannot be read, and for a key that is empty or cannot stand in a header.
        """
        if self.api_key_file is not None:
            where = self.api_key_file
            try:
                text = Path(where).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as cause:
                raise ConfigError(f"serve: cannot read the API key from {where}: {cause}; check the path.") from cause
        elif KEY_VARIABLE in os.environ:
            where, text = KEY_VARIABLE, os.environ[KEY_VARIABLE]
        else:
            return None
        key = text.strip()
        if not re.fullmatch(r"[!-~]{8,}", key):
            # The key itself is kept out of the message: it may end in a log.
            raise ConfigError(
                f"serve: the API key in {where} must be one line of at least 8 printable ASCII characters without "
                f"spaces, got {len(key)} characters; write another key there."
            )
        return key.encode("ascii")

    def _check_names(self) -> None:
        names = self.model_names()
        self.require(
            "names must be one a checkpoint", len(names) == len(self.checkpoint), names=self.names,
            checkpoint=self.checkpoint,
        )
        for name in names:
            self.require(
                "a name must begin with a letter or digit and hold letters, digits and . _ : / - (128 at most); "
                "give other names", _NAME.fullmatch(name) is not None, names=name,
            )
        self.require("names must differ; give names", len(set(names)) == len(names), names=names)
