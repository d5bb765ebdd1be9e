"""A shuffled order that is a pure function of seed and position, so that a run resumes at any place without replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from instructgpt_fast.errors import ConfigError, DataError

__all__ = ["Order"]

_ROUNDS = 6  # four make a Feistel network indistinguishable from random (Luby and Rackoff 1988); two to spare
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mixed(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finalizer (Steele et al. 2014): every input bit reaches every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class Order:
    """Endless passes over `n` items, each pass in an order of its own; position p is in pass p // n.

    The order within a pass is a Feistel permutation of 0..n-1, walked until it falls inside (Black and Rogaway 2002):
    no table is kept, any position costs the same, and every machine finds the same order.
    """

    def __init__(self, n: int, seed: int, *, shuffle: bool = True) -> None:
        """Begin at position 0. shuffle: False goes through the items as they stand. Raises ConfigError for n < 1."""
        if n < 1:
            raise ConfigError(f"Order: there must be at least 1 item, got {n}")
        self.n, self.seed, self.shuffle = n, seed, shuffle
        self.position = 0
        self._half_bits = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))

    @property
    def epoch(self) -> int:
        """The pass that the next item belongs to, from 0."""
        return self.position // self.n

    def at(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the items at `positions`, int64 of the same shape, without moving."""
        where = np.asarray(positions, dtype=np.uint64)
        passes, places = where // np.uint64(self.n), where % np.uint64(self.n)
        if not self.shuffle:
            return places.astype(np.int64)
        with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is what the hash is made of
            keys = mixed(mixed(np.full_like(where, self.seed % 2**64) + _GOLDEN) + passes)
            found = self._permuted(places, keys)
            while (outside := found >= self.n).any():
                found = np.where(outside, self._permuted(found, keys), found)
        return found.astype(np.int64)

    def _permuted(
        self, values: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.uint64]:
        mask = (np.uint64(1) << self._half_bits) - np.uint64(1)
        left, right = values >> self._half_bits, values & mask
        for number in range(_ROUNDS):
            hashed = mixed(right + keys + np.uint64(number) * _GOLDEN)
            left, right = right, left ^ (hashed & mask)
        return (left << self._half_bits) | right

    def take(self, count: int) -> list[int]:
        """Return the next `count` items and move past them; a pass that ends is followed by the next."""
        found = self.at(np.arange(self.position, self.position + count))
        self.position += count
        return [int(item) for item in found]

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as plain JSON values."""
        return {"n": self.n, "seed": self.seed, "shuffle": self.shuffle, "position": self.position}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where another order stood. Raises DataError when that one went through other data or another seed."""
        for name in ("n", "seed", "shuffle"):
            if state[name] != getattr(self, name):
                raise DataError(
                    f"Order: a run resumes only on the data and seed it began with: {name} was {state[name]}, "
                    f"now {getattr(self, name)}; use the same, or begin a new run"
                )
        self.position = int(state["position"])
