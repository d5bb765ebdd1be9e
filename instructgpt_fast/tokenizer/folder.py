"""A tokenizer's files in a folder: tokenizer.json, or vocab.json with merges.txt, and the names of special tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from instructgpt_fast.errors import DataError
from instructgpt_fast.tokenizer.byte_level import read_merges, read_vocab
from instructgpt_fast.tokenizer.training import byte_level_backend

__all__ = ["MERGES", "NAMES_FILE", "TOKENIZER", "TOKENIZER_FILES", "VOCAB", "read_backend", "special_names"]

TOKENIZER, VOCAB, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
NAMES_FILE = "tokenizer_config.json"  # where Hugging Face tokenizers keep the names of EOS and PAD
_OLDER_NAMES_FILE = "special_tokens_map.json"
_ADDED_FILE = "added_tokens.json"

TOKENIZER_FILES = (TOKENIZER, VOCAB, MERGES, NAMES_FILE, _OLDER_NAMES_FILE, _ADDED_FILE)
"""Every file that this module may read."""


def read_backend(path: Path) -> tuple[tokenizers.Tokenizer, Path]:
    """Read a tokenizer.json, or the tokenizer of a folder, and return it with the file it came from.

    A folder's tokenizer.json is taken when it is there; else vocab.json and merges.txt, read as GPT-2's, with the
    tokens that added_tokens.json or tokenizer_config.json put after them.
    Raises DataError naming the file for one that is missing or damaged.
    """
    file = path / TOKENIZER if path.is_dir() else path
    if path.is_dir() and not file.exists() and (path / VOCAB).exists():
        return _read_pair(path), path / VOCAB
    try:
        return tokenizers.Tokenizer.from_str(file.read_bytes().decode("utf-8")), file
    except OSError as error:
        raise DataError(f"tokenizer: cannot read the file ({error.strerror}); check the path", file) from error
    except Exception as error:  # the library raises bare Exception for what it cannot parse
        raise DataError(f"tokenizer: the file must be a tokenizer.json, got {error}", file) from error


def special_names(folder: Path) -> dict[str, str]:
    """Read the names of EOS and PAD ("eos_token", "pad_token") where the folder gives them.

    tokenizer_config.json comes before special_tokens_map.json. A PAD that is EOS, as GPT-2's folders often have it,
    is left out: a model trained so never learns to stop. Raises DataError for a file that is no JSON object.
    """
    names: dict[str, str] = {}
    for name in (_OLDER_NAMES_FILE, NAMES_FILE):
        found = _read_object(folder / name)
        entries = {key: found.get(key) for key in ("eos_token", "pad_token")}
        given = {key: value.get("content") if isinstance(value, dict) else value for key, value in entries.items()}
        names |= {key: value for key, value in given.items() if isinstance(value, str)}
    if "pad_token" in names and names["pad_token"] == names.get("eos_token"):
        del names["pad_token"]
    return names


def _read_pair(folder: Path) -> tokenizers.Tokenizer:
    table = read_vocab(folder / VOCAB)
    merges = read_merges(folder / MERGES, table)
    backend = byte_level_backend(models.BPE(vocab=table, merges=merges))
    wanted = _added_tokens(folder)
    for number in sorted(wanted):
        backend.add_tokens([wanted[number]])
        if backend.token_to_id(wanted[number].content) != number:
            raise DataError(
                f"tokenizer: the added token {wanted[number].content!r} must follow the vocabulary as number "
                f"{backend.token_to_id(wanted[number].content)}, got {number}; give the files of one tokenizer", folder,
            )
    return backend


def _added_tokens(folder: Path) -> dict[int, AddedToken]:
    """Id -> token, from the older file and from tokenizer_config.json, which also says how each is matched."""
    tokens: dict[int, AddedToken] = {}
    for content, number in _read_object(folder / _ADDED_FILE).items():
        if type(number) is not int:
            raise DataError(f"tokenizer: {_ADDED_FILE} must map tokens to ids, got {number!r}", folder / _ADDED_FILE)
        tokens[number] = AddedToken(content, normalized=False, special=True)
    described = _read_object(folder / NAMES_FILE).get("added_tokens_decoder") or {}
    try:
        for number, entry in described.items():
            flags = {key: bool(entry.get(key, False)) for key in ("special", "lstrip", "rstrip", "single_word")}
            tokens[int(number)] = AddedToken(entry["content"], normalized=False, **flags)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"tokenizer: added_tokens_decoder must map ids to objects with 'content', got {error!r}",
            folder / NAMES_FILE,
        ) from error
    return tokens


def _read_object(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"tokenizer: {path.name} must be one JSON object, got {error}", path) from error
    if not isinstance(found, dict):
        raise DataError(f"tokenizer: {path.name} must be one JSON object, got {type(found).__name__}", path)
    return found
