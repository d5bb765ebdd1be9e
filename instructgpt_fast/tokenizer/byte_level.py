"""GPT-2's printable alphabet for bytes, and its vocab.json and merges.txt files (Radford et al. 2019, section 2.2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from instructgpt_fast.errors import DataError

__all__ = ["ALPHABET", "read_merges", "read_vocab", "token_bytes"]

# Bytes that have a visible character of their own in Latin-1 keep it; the others take the characters from 256 on, in
# order, so that a token never holds a blank or a control character in the vocabulary file.
_VISIBLE = (*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1))
_HIDDEN = tuple(byte for byte in range(256) if byte not in _VISIBLE)

ALPHABET: Mapping[str, int] = {
    **{chr(byte): byte for byte in _VISIBLE},
    **{chr(256 + place): byte for place, byte in enumerate(_HIDDEN)},
}
"""The character that stands for each byte in a vocabulary, to that byte."""


def token_bytes(token: str) -> bytes:
    """Return the bytes that a vocabulary entry stands for; text outside the alphabet stands for its UTF-8."""
    try:
        return bytes(ALPHABET[character] for character in token)
    except KeyError:
        return token.encode("utf-8")


def read_vocab(path: Path) -> dict[str, int]:
    """Read vocab.json (also called encoder.json): one JSON object from token to id.

    Raises DataError naming the file for a file that is missing, not UTF-8, not such an object, or lacks a byte.
    """
    try:
        vocab = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"tokenizer: vocab.json must be JSON, got {error.msg}", path, error.lineno) from error
    if not isinstance(vocab, dict) or not all(type(value) is int and value >= 0 for value in vocab.values()):
        raise DataError("tokenizer: vocab.json must be one object from token to id", path)
    if len(set(vocab.values())) != len(vocab):
        raise DataError("tokenizer: every token of vocab.json must have an id of its own, some ids stand twice", path)
    missing = [byte for character, byte in ALPHABET.items() if character not in vocab]
    if missing:
        raise DataError(
            f"tokenizer: the vocabulary must hold all 256 bytes to be lossless, {len(missing)} are missing "
            f"(the first is byte {min(missing)}); use a byte-level vocabulary such as GPT-2's", path,
        )
    return vocab


def read_merges(path: Path, vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """Read merges.txt (also called vocab.bpe): a version line, then one merge of two tokens a line, best first.

    Raises DataError with file and line for a line that is not two tokens, or whose tokens or merge `vocab` lacks.
    """
    merges = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.rstrip("\r").split(" ")
        if len(pair) != 2:
            raise DataError(f"tokenizer: a merge must be two tokens with a space between, got {line!r}", path, number)
        for token in (*pair, "".join(pair)):
            if token not in vocab:
                raise DataError(
                    f"tokenizer: the merge {line!r} needs the token {token!r}, which vocab.json lacks; "
                    "give the two files of one tokenizer", path, number,
                )
        merges.append((pair[0], pair[1]))
    return merges


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(f"tokenizer: cannot read the file ({error.strerror}); check the path", path) from error
    except UnicodeDecodeError as error:
        raise DataError(f"tokenizer: the file must be UTF-8, byte {error.start} is not", path) from error
