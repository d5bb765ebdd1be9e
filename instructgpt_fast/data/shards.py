"""Token shards: text tokenized once, kept in memory-mapped files, read back from any place.

A folder holds 00000.tokens, 00001.tokens, ... and index.json, which is written last and says that all is there. Each
shard is a header of 128 bytes and its tokens, uint16 where the vocabulary allows and uint32 otherwise, little-endian.
Documents follow each other with EOS behind each; no document is parted by a shard's end.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from instructgpt_fast.errors import DataError
from instructgpt_fast.tokenizer import Tokenizer

__all__ = ["HEADER", "INDEX", "ShardHeader", "TokenShards", "is_shard_folder", "read_header", "shard_name"]

INDEX = "index.json"
FORMAT = 1
_MAGIC = b"IGFTOKEN"
# magic, format, bytes of a token, tokens, documents, first document, shard number, EOS, CRC-32 of the tokens, padding,
# fingerprint of the tokenizer, fingerprint of the text
HEADER = struct.Struct("<8sIIQQQQQI4x32s32s")


class ShardHeader(NamedTuple):
    """What the first 128 bytes of a shard say; documents are counted over the whole folder from 0."""

    item_bytes: int
    tokens: int
    documents: int
    first_document: int
    number: int
    eos_id: int
    crc32: int
    tokenizer: str
    source: str

    def pack(self) -> bytes:
        """Return the bytes that `read_header` reads."""
        numbers = self[:7]
        return HEADER.pack(_MAGIC, FORMAT, *numbers, bytes.fromhex(self.tokenizer), bytes.fromhex(self.source))


def shard_name(number: int) -> str:
    """Return the file name of shard `number`."""
    return f"{number:05d}.tokens"


def is_shard_folder(path: str | os.PathLike[str]) -> bool:
    """Say whether a folder holds token shards, finished or not."""
    folder = Path(path)
    return folder.is_dir() and ((folder / INDEX).is_file() or (folder / shard_name(0)).is_file())


def read_header(path: Path) -> ShardHeader:
    """Read and check a shard's header against the size of its file.

    Raises DataError for a file that is no shard, of another format, or shorter or longer than its header says.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER.size)
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"shards: cannot read the file ({error.strerror}); build the shards again", path) from error
    if len(raw) < HEADER.size or not raw.startswith(_MAGIC):
        raise DataError("shards: the file must begin with a token shard's header, got something else", path)
    _, version, *numbers, tokenizer, source = HEADER.unpack(raw)
    if version != FORMAT:
        raise DataError(f"shards: the format must be {FORMAT}, got {version}; build the shards again", path)
    header = ShardHeader._make([*numbers, tokenizer.hex(), source.hex()])
    expected = HEADER.size + header.tokens * header.item_bytes
    if size != expected or header.item_bytes not in (2, 4):
        state = "truncated" if size < expected else "damaged"
        raise DataError(
            f"shards: the file is {state}: {header.tokens} tokens of {header.item_bytes} bytes make {expected} bytes, "
            f"got {size}; delete it and build the shards again", path,
        )
    return header


class TokenShards(Sequence[int]):
    """All tokens of a folder as one sequence, read from disk when asked for.

    `shards[a:b]` is int64 [b - a]; `documents` counts documents; `vocab_size` and `eos_id` are the tokenizer's.
    """

    def __init__(self, folder: str | os.PathLike[str], tokenizer: Tokenizer | None = None) -> None:
        """Open a finished folder, checking every header.

        tokenizer: when given, the one the shards must have been made with.
        Raises DataError when they are unfinished, damaged, or of another tokenizer.
        """
        self.folder = Path(folder)
        index = self._index()
        self.fingerprint: str = index["tokenizer"]
        self.vocab_size: int = index["vocab_size"]
        self.eos_id: int = index["eos_id"]
        self.documents: int = index["documents"]
        self.skipped_lines: int = index["skipped_lines"]
        if tokenizer is not None and tokenizer.fingerprint != self.fingerprint:
            raise DataError(
                f"shards: they must be made with the tokenizer in use ({tokenizer.vocab_size} tokens, "
                f"{tokenizer.fingerprint[:12]}), got one of {self.vocab_size} tokens, {self.fingerprint[:12]}; "
                "build the shards again", self.folder,
            )
        self._maps = [self._map(number, entry) for number, entry in enumerate(index["shards"])]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._maps)])

    def _index(self) -> dict[str, Any]:
        path = self.folder / INDEX
        try:
            index = json.loads(path.read_bytes())
            wanted = {"tokenizer": str, "vocab_size": int, "eos_id": int, "documents": int, "skipped_lines": int}
            if any(not isinstance(index[name], kind) for name, kind in wanted.items()) or not index["shards"]:
                raise KeyError("a field")
        except FileNotFoundError as error:
            raise DataError(
                "shards: the folder must hold index.json, which is written last; building was not finished: "
                "prepare the same text into it again and it goes on", self.folder,
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"shards: index.json is damaged ({error}); build the shards again", path) from error
        return dict(index)

    def _map(self, number: int, entry: Any) -> npt.NDArray[Any]:
        path = self.folder / shard_name(number)
        header = read_header(path)
        if (header.number, header.tokenizer) != (number, self.fingerprint) or header.tokens != entry["tokens"]:
            raise DataError("shards: the file is not the one that index.json lists; build the shards again", path)
        if sys.byteorder != "little":
            raise DataError("shards: token shards are little-endian; this machine is not", path)
        kind = np.uint16 if header.item_bytes == 2 else np.uint32
        return np.memmap(path, dtype=kind, mode="r", offset=HEADER.size, shape=(header.tokens,))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, place: Any) -> Any:
        """Return one token as int, or a slice of step 1 as int64 [stop - start]."""
        if not isinstance(place, slice):
            index = range(len(self))[place]
            return int(self._read(index, index + 1)[0])
        start, stop, step = place.indices(len(self))
        if step != 1:
            raise DataError(f"shards: a slice of tokens must have step 1, got {step}", self.folder)
        return self._read(start, max(start, stop))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return every token; meant for texts that fit in memory."""
        return self._read(0, len(self)).astype(dtype or np.int64, copy=False)

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        found = np.empty(stop - start, dtype=np.int64)
        filled = 0
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while filled < len(found):
            begin = start + filled - int(self._starts[shard])
            part = self._maps[shard][begin : begin + len(found) - filled]
            found[filled : filled + len(part)] = part
            filled += len(part)
            shard += 1
        return found

    def verify(self) -> None:
        """Read every token and compare with the sums in the headers. Raises DataError for the first shard changed."""
        for number, shard in enumerate(self._maps):
            path = self.folder / shard_name(number)
            expected = read_header(path).crc32
            found = zlib.crc32(shard.data)
            if found != expected:
                raise DataError(
                    f"shards: the tokens have changed: their CRC-32 must be {expected:08x}, got {found:08x}; "
                    "delete the file and build the shards again", path,
                )
