"""Learning the merges of a byte-level BPE from text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.tokenizer.byte_level import ALPHABET

__all__ = ["byte_level_backend", "check_text", "train_backend"]

_BLOCK_CHARACTERS = 1 << 20  # what is read of a file at a time


def byte_level_backend(model: models.BPE) -> tokenizers.Tokenizer:
    """Put GPT-2's pattern and byte alphabet in front of `model`, and their reverse behind it."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    return backend


def train_backend(
    texts: Iterable[str | os.PathLike[str]], vocab_size: int, special_tokens: int, min_frequency: int
) -> tokenizers.Tokenizer:
    """Train on documents (str) and files (Path); `special_tokens` of `vocab_size` are left free for the caller.

    Raises ConfigError for a vocabulary that cannot hold the bytes, DataError for no text or for text that is not UTF-8.
    """
    smallest = len(ALPHABET) + special_tokens
    if vocab_size < smallest:
        raise ConfigError(
            f"tokenizer: vocab_size must be at least {smallest} ({len(ALPHABET)} bytes and {special_tokens} special "
            f"tokens), got {vocab_size}"
        )
    backend = byte_level_backend(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - special_tokens,
        min_frequency=min_frequency,
        initial_alphabet=sorted(ALPHABET),
        show_progress=False,
    )
    characters = 0

    def counted() -> Iterator[str]:
        nonlocal characters
        for place, item in enumerate(texts):
            for text in [item] if isinstance(item, str) else _blocks(Path(item)):
                check_text(text, place)
                characters += len(text)
                yield text

    backend.train_from_iterator(counted(), trainer)
    if not characters:
        raise DataError("tokenizer: training needs text, got none; check the files or the iterable")
    return backend


def check_text(text: str, place: int) -> None:
    """Refuse text that UTF-8 cannot hold, saying that it is text number `place`."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"tokenizer: text {place} must be valid Unicode, its character {error.start} is a lone surrogate "
            f"(U+{ord(text[error.start]):04X}); decode the source with errors='replace'"
        ) from error


def _blocks(path: Path) -> Iterator[str]:
    """Yield the file in large blocks of whole lines, so that merges across line ends are learnt too."""
    lines: list[str] = []
    gathered = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    lines.append(line.decode("utf-8"))
                except UnicodeDecodeError as error:
                    rule = f"tokenizer: the line must be UTF-8, its byte {error.start} is not"
                    raise DataError(f"{rule}; convert the file", path, number) from error
                gathered += len(lines[-1])
                if gathered >= _BLOCK_CHARACTERS:
                    yield "".join(lines)
                    lines, gathered = [], 0
    except OSError as error:
        raise DataError(f"tokenizer: cannot read the file ({error.strerror}); check the path", path) from error
    if lines:
        yield "".join(lines)
