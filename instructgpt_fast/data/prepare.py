"""Builds token shards from text; a build that was stopped goes on behind its last whole shard."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from instructgpt_fast.data.jsonl import OnBadLine
from instructgpt_fast.data.shards import INDEX, ShardHeader, TokenShards, is_shard_folder, read_header, shard_name
from instructgpt_fast.data.texts import Piece, SkippedLines, pieces, text_files
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.files import atomic_write, reporting_write_errors
from instructgpt_fast.tokenizer import Tokenizer

__all__ = ["SHARD_TOKENS", "open_tokens", "prepare", "prepare_texts"]

SHARD_TOKENS = 1 << 25  # 64 MiB of two-byte tokens: few files, and little work lost when a build is stopped
_BATCH_CHARACTERS = 1 << 22  # encoded at a time on all cores
_SAMPLED_BYTES = 1 << 16


def open_tokens(
    path: str | os.PathLike[str],
    tokenizer: Tokenizer,
    cache: str | os.PathLike[str],
    *,
    on_bad_line: OnBadLine = "error",
    on_progress: Callable[[int], None] | None = None,
) -> TokenShards:
    """Open `path` if it is a folder of shards; otherwise prepare that text into `cache`, or find it there.

    Raises DataError as `prepare` and `TokenShards` do.
    """
    if is_shard_folder(path):
        return TokenShards(path, tokenizer)
    return prepare(path, cache, tokenizer, on_bad_line=on_bad_line, on_progress=on_progress)


def prepare(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    tokenizer: Tokenizer,
    *,
    shard_tokens: int = SHARD_TOKENS,
    on_bad_line: OnBadLine = "error",
    on_progress: Callable[[int], None] | None = None,
) -> TokenShards:
    """Tokenize a .txt or .jsonl file, or a folder of them, into `folder`, with EOS behind each document.

    What is finished already is kept: whole shards of an interrupted build, or everything.
    shard_tokens: a shard ends with the document that reaches this many tokens.
    on_progress: called with the number of tokens written so far, after each shard.
    Raises DataError for text that cannot be read (see `texts.pieces`), for a folder that holds shards of another text
    or tokenizer, and for one that cannot be written.
    """
    skipped = SkippedLines()
    found = pieces(source, on_bad_line=on_bad_line, skipped=skipped)
    mark = _source_mark(Path(source), on_bad_line)
    return _Build(Path(folder), tokenizer, mark, shard_tokens, skipped, on_progress).run(found)


def prepare_texts(
    texts: Iterable[str], folder: str | os.PathLike[str], tokenizer: Tokenizer, *, shard_tokens: int = SHARD_TOKENS
) -> TokenShards:
    """Tokenize documents given as text into a folder; what that folder held before must be these documents too.

    Raises DataError as `prepare` does.
    """
    kept = list(texts)
    mark = hashlib.sha256()
    for text in kept:
        mark.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    build = _Build(Path(folder), tokenizer, mark.hexdigest(), shard_tokens, SkippedLines(), None)
    return build.run(Piece(text, ends=True) for text in kept if text)


def _source_mark(source: Path, on_bad_line: str) -> str:
    """Fingerprint of the files' names, sizes, beginnings and ends: notices another text without reading all of it."""
    root = source if source.is_dir() else source.parent
    mark = hashlib.sha256(on_bad_line.encode("ascii"))
    for path in text_files(source):
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_SAMPLED_BYTES)
            file.seek(max(0, size - _SAMPLED_BYTES))
            tail = file.read(_SAMPLED_BYTES)
        mark.update(json.dumps([path.relative_to(root).as_posix(), size]).encode("ascii") + head + tail)
    return mark.hexdigest()


@dataclass
class _Build:
    """One build: what it makes, and how far it has come."""

    folder: Path
    tokenizer: Tokenizer
    source: str
    shard_tokens: int
    skipped: SkippedLines
    on_progress: Callable[[int], None] | None
    done: list[ShardHeader] = field(default_factory=list)

    def run(self, found: Iterable[Piece]) -> TokenShards:
        if self.shard_tokens < 1:
            raise ConfigError(f"prepare: shard_tokens must be at least 1, got {self.shard_tokens}")
        with reporting_write_errors(self.folder, DataError):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._find_finished()
        if (self.folder / INDEX).exists():
            return TokenShards(self.folder, self.tokenizer)
        skip = sum(header.documents for header in self.done)
        parts: list[np.ndarray] = []
        tokens = documents = 0
        for encoded, ends in self._documents(_after(found, skip)):
            parts.append(encoded)
            tokens += len(encoded)
            documents += ends
            if ends and tokens >= self.shard_tokens:
                self._write(parts, documents)
                parts, tokens, documents = [], 0, 0
        if parts:
            self._write(parts, documents)
        if not self.done:
            raise DataError("prepare: the text must hold at least one document, got none; check the source")
        self._write_index()
        return TokenShards(self.folder, self.tokenizer)

    def _find_finished(self) -> None:
        """Take over whole shards of the same text and tokenizer, in order; refuse any others."""
        while (path := self.folder / shard_name(len(self.done))).exists():
            header = read_header(path)
            if (header.tokenizer, header.source) != (self.tokenizer.fingerprint, self.source):
                what = "tokenizer" if header.tokenizer != self.tokenizer.fingerprint else "text"
                raise DataError(
                    f"prepare: the folder holds shards of another {what}; delete them or name another folder", path
                )
            self.done.append(header)

    def _documents(self, found: Iterable[Piece]) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield the tokens of each piece, EOS behind the last one of a document."""
        kind = self._kind
        for batch in _batches(found):
            for piece, tokens in zip(batch, self.tokenizer.encode_batch([p.text for p in batch]), strict=True):
                yield np.array([*tokens, self.tokenizer.eos_id] if piece.ends else tokens, dtype=kind), piece.ends

    @property
    def _kind(self) -> np.dtype:
        return np.dtype("<u2" if self.tokenizer.vocab_size <= 1 << 16 else "<u4")

    def _write(self, parts: list[np.ndarray], documents: int) -> None:
        crc = 0
        for part in parts:
            crc = zlib.crc32(part.data, crc)
        header = ShardHeader(
            item_bytes=self._kind.itemsize, tokens=sum(len(part) for part in parts), documents=documents,
            first_document=sum(done.documents for done in self.done), number=len(self.done),
            eos_id=self.tokenizer.eos_id, crc32=crc, tokenizer=self.tokenizer.fingerprint, source=self.source,
        )

        def content(file: IO[bytes]) -> None:
            file.write(header.pack())
            for part in parts:
                file.write(part.data)

        atomic_write(self.folder / shard_name(header.number), content, error=DataError)
        self.done.append(header)
        if self.on_progress is not None:
            self.on_progress(sum(done.tokens for done in self.done))

    def _write_index(self) -> None:
        index = {
            "format": 1,
            "tokenizer": self.tokenizer.fingerprint,
            "vocab_size": self.tokenizer.vocab_size,
            "eos_id": self.tokenizer.eos_id,
            "documents": sum(header.documents for header in self.done),
            "tokens": sum(header.tokens for header in self.done),
            "skipped_lines": len(self.skipped),
            "shards": [
                {"file": shard_name(header.number), "tokens": header.tokens, "documents": header.documents}
                for header in self.done
            ],
        }
        atomic_write(self.folder / INDEX, json.dumps(index, indent=2) + "\n", error=DataError)


def _after(found: Iterable[Piece], documents: int) -> Iterator[Piece]:
    for piece in found:
        if documents == 0:
            yield piece
        documents -= piece.ends and documents > 0


def _batches(found: Iterable[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    characters = 0
    for piece in found:
        batch.append(piece)
        characters += len(piece.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
