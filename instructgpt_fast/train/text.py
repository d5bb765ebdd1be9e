"""Pretraining text of a run: its tokenizer, its token shards, and shuffled windows over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from instructgpt_fast.data import (
    OnBadLine,
    Order,
    TokenShards,
    TokenWindows,
    documents,
    is_shard_folder,
    open_tokens,
)
from instructgpt_fast.data.prepare import SHARD_TOKENS
from instructgpt_fast.errors import CheckpointError, ConfigError
from instructgpt_fast.files import reporting_write_errors
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train.loop import PREPARED, Run


class Windows:
    """Windows of text in an order that is a pure function of the seed, pass after pass."""

    def __init__(self, tokens: Any, length: int, seed: int) -> None:
        """tokens: shards or an array of ids; length: tokens of a window. Raises ConfigError or DataError."""
        self._windows = TokenWindows(tokens, length)
        self._order = Order(len(self._windows), seed)

    def __len__(self) -> int:
        return len(self._windows)

    def batch(self, first: int, count: int) -> Tensor:
        """Windows `first` .. `first + count - 1` of the endless order, int64 [count, length]."""
        return self._windows.batch([int(i) for i in self._order.at(np.arange(first, first + count))])

    def state(self, position: int) -> dict[str, Any]:
        """What a checkpoint keeps when the next window is `position`."""
        return {**self._order.state(), "position": position}

    def restore(self, state: dict[str, Any]) -> int:
        """The position that a checkpoint kept. Raises DataError when it was made on other data or another seed."""
        self._order.restore(state)
        return self._order.position


def open_text(
    run: Run, path: str, tokenizer: Tokenizer, *, name: str, on_bad_line: OnBadLine = "error"
) -> TokenShards:
    """Tokens of a text, a folder of texts, or a folder of shards; prepared once into the run's directory.

    name: of the folder that prepared shards go to. Raises DataError.
    """

    def tell(count: int) -> None:
        if count >= SHARD_TOKENS:  # a small text is ready before one could wonder
            run.say(f"{path}: {count:,} tokens so far")

    cache = run.directory / PREPARED / name
    shards = open_tokens(path, tokenizer, cache, on_bad_line=on_bad_line, on_progress=tell)
    skipped = f", {shards.skipped_lines} lines left out that cannot be read" if shards.skipped_lines else ""
    run.say(f"{path}: {len(shards):,} tokens in {shards.documents:,} documents{skipped}")
    return shards


def open_tokenizer(
    run: Run, data: str, given: str | None, vocab_size: int, *, on_bad_line: OnBadLine = "error"
) -> Tokenizer:
    """The tokenizer that is given, or the one beside shards, or one trained on the text and kept with the run.

    Raises DataError, or ConfigError when shards come without a tokenizer.
    """
    if given is not None:
        return Tokenizer.load(given)
    if is_shard_folder(data):
        if (Path(data) / "tokenizer.json").exists():
            return Tokenizer.load(data)
        raise ConfigError(
            f"pretrain: shards need the tokenizer that made them, got no tokenizer and no tokenizer.json in {data}; "
            "pass tokenizer."
        )
    folder = run.directory / PREPARED
    if (folder / "tokenizer.json").exists():
        return Tokenizer.load(folder)
    run.say(f"training a tokenizer of {vocab_size} tokens on {data}")
    tokenizer = Tokenizer.train(documents(data, on_bad_line=on_bad_line), vocab_size)
    with reporting_write_errors(folder, CheckpointError):
        folder.mkdir(exist_ok=True)
    tokenizer.save(folder)
    return tokenizer
