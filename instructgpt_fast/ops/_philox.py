"""Philox4x32-10 in plain torch, for the oracles of ops that draw random numbers.

Not covered: speed; the native loops draw with csrc/device/philox.h.
"""

from __future__ import annotations

from torch import Tensor

# The last word of a counter names the use, so that two ops given one seed never share numbers.
SAMPLING_USE = 1
DROPOUT_USE = 2

_LOW = 0xFFFFFFFF


def key_of(seed: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of int64 seeds, as int64 tensors that hold 32-bit words."""
    return seed & _LOW, (seed >> 32) & _LOW


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four 32-bit words for each counter and key, all int64 tensors that hold 32-bit words (products wrap harmlessly).

    Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.3 and table 2.
    """
    c0, c1, c2, c3 = counter
    low, high = key
    for _ in range(10):
        first, second = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            ((second >> 32) & _LOW) ^ c1 ^ low,
            second & _LOW,
            ((first >> 32) & _LOW) ^ c3 ^ high,
            first & _LOW,
        )
        low, high = (low + 0x9E3779B9) & _LOW, (high + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3
