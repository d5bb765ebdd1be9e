"""The _host module: build facts, and sequence packing against best-fit decreasing written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructgpt_fast import _host


def best_fit_decreasing(lengths: list[int], capacity: int) -> list[int]:
    rooms: list[int] = []
    bin_of = [0] * len(lengths)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [(room, b) for b, room in enumerate(rooms) if room >= lengths[index]]
        if not fitting:
            rooms.append(capacity)
        chosen = min(fitting)[1] if fitting else len(rooms) - 1
        rooms[chosen] -= lengths[index]
        bin_of[index] = chosen
    return bin_of


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(20, 30))
def test_packing_equals_the_definition(lengths: list[int], capacity: int) -> None:
    bins = _host.pack_sequences(np.array(lengths, dtype=np.int64), capacity)
    assert bins.dtype == np.int64
    assert bins.tolist() == best_fit_decreasing(lengths, capacity)
    if lengths:
        assert np.bincount(bins, weights=lengths).max() <= capacity


def test_packing_fills_bins() -> None:
    """8 = 7 + 1 = 5 + 3 = 8, and the zero goes to the fullest bin, the first."""
    assert _host.pack_sequences(np.array([5, 8, 3, 7, 1, 0]), 8).tolist() == [2, 0, 2, 1, 1, 0]


def test_packing_refuses() -> None:
    with pytest.raises(ValueError, match=r"every length must be in \[0, 8\], got 9 at 1"):
        _host.pack_sequences(np.array([1, 9]), 8)
    with pytest.raises(ValueError, match="got -1 at 0"):
        _host.pack_sequences(np.array([-1]), 8)
    with pytest.raises(ValueError, match="1 dimension, got 2"):
        _host.pack_sequences(np.array([[1]]), 8)
    with pytest.raises(TypeError):
        _host.pack_sequences(np.array([1.0]), 8)


def test_build_facts() -> None:
    facts = _host.build_facts()
    assert facts["optimised"] is True
    assert facts["cxx_standard"] >= 202002
    assert facts["cpu_level"] in ("x86-64-v4", "x86-64-v3", "x86-64", "generic")
