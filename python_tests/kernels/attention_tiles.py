"""What attention's kernels bring from memory, counted from the shapes: by tiles of rows, of queries and of keys.

A tile begins at a multiple of its rows within its sequence. Whether a tile is brought follows from who sees whom, query
by query: written here as `ops/attention/attention.h` says it, and not as the kernels work it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from python_tests.ops.suite import Inputs


@dataclass(frozen=True)
class Sequence:
    """One sequence of a batch, and the band that its queries see."""

    queries: int
    keys: int
    causal: bool
    window: int | None

    def seen_by(self, query: int) -> range:
        """The keys that one query sees."""
        position = query + self.keys - self.queries
        end = min(self.keys, position + 1) if self.causal else self.keys
        return range(0 if self.window is None else max(0, position + 1 - self.window), max(end, 0))


def sequences(inputs: Inputs, *, causal: bool = True, window: int | None = None) -> list[Sequence]:
    """The sequences of a call of attention, in order."""
    if "cu_seqlens" not in inputs:
        batch, queries = inputs["q"].shape[:2]
        return [Sequence(queries, inputs["k"].shape[1], causal, window)] * batch
    bounds = inputs["cu_seqlens"].tolist()
    return [Sequence(end - begin, end - begin, causal, window) for begin, end in zip(bounds, bounds[1:], strict=False)]


def tiles(rows: int, of_tile: int) -> Iterator[range]:
    """The tiles of a sequence's rows; the last may be shorter."""
    return (range(first, min(first + of_tile, rows)) for first in range(0, rows, of_tile))


def keys_brought(inputs: Inputs, queries: int, keys: int, *, causal: bool = True, window: int | None = None) -> int:
    """Rows of k, for one query head, where each tile of `queries` brings the tiles of `keys` that some of them see."""
    return sum(
        len(key_tile)
        for sequence in sequences(inputs, causal=causal, window=window)
        for tile in tiles(sequence.queries, queries)
        for key_tile in _between(sequence, tile, keys)
    )


def tiles_met(inputs: Inputs, queries: int, keys: int, **band: Any) -> int:
    """Pairs of a tile of `queries` and a tile of `keys`, for one query head: from the first to the last it sees."""
    return sum(
        len(_between(sequence, tile, keys))
        for sequence in sequences(inputs, **band) for tile in tiles(sequence.queries, queries)
    )


def queries_that_see(inputs: Inputs, queries: int, *, causal: bool = True, window: int | None = None) -> int:
    """Rows of q, for one head, in tiles of which some query sees some key: only these are brought."""
    return sum(
        len(tile)
        for sequence in sequences(inputs, causal=causal, window=window)
        for tile in tiles(sequence.queries, queries)
        if any(sequence.seen_by(i) for i in tile)
    )


def queries_brought(inputs: Inputs, keys: int, queries: int, *, causal: bool = True, window: int | None = None) -> int:
    """Rows of q, for one head, where each tile of `keys` brings the tiles of `queries` of which some see some of it.

    That is what a backward pass brings: from the first to the last such tile.
    """
    count = 0
    for sequence in sequences(inputs, causal=causal, window=window):
        for key_tile in tiles(sequence.keys, keys):
            seeing = [i for i in range(sequence.queries) if _meet(sequence.seen_by(i), key_tile)]
            if seeing:
                last_tile = seeing[-1] // queries
                count += min(sequence.queries, (last_tile + 1) * queries) - seeing[0] // queries * queries
    return count


def bounds_read(inputs: Inputs, rows: int) -> int:
    """How many bounds of a packed batch a thread of every slot reads, with tiles of `rows` rows; see `tile_of_slot`."""
    if "cu_seqlens" not in inputs:
        return 0
    bounds = inputs["cu_seqlens"].tolist()
    sequence_count = len(bounds) - 1
    count = 0
    for slot in range(inputs["q"].shape[0] // rows + sequence_count):
        low, high = 0, sequence_count
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if bounds[middle] // rows + middle <= slot else (low, middle)
            count += 1
        count += 2  # where the sequence that was found begins and ends
    return count


def _between(sequence: Sequence, tile: range, keys: int) -> list[range]:
    """The tiles of keys from the first to the last that some query of a tile sees."""
    seen = [r for r in map(sequence.seen_by, tile) if r]
    if not seen:
        return []
    whole = range(min(r.start for r in seen), max(r.stop for r in seen))
    return [key_tile for key_tile in tiles(sequence.keys, keys) if _meet(whole, key_tile)]


def _meet(a: range, b: range) -> bool:
    return max(a.start, b.start) < min(a.stop, b.stop)
