"""Groups of equal keys and the count of a user's examples, on rows made for it: across blocks, with half-equal keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instructgpt_fast.data.hygiene import duplicates, spill


@pytest.mark.parametrize("block", [2, 3, 100])
def test_both_halves_of_a_key_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Keys that share one half are different, in whatever order and block they come."""
    monkeypatch.setattr(spill, "BLOCK_ROWS", block)
    keys = [(1, 1), (1, 2), (1, 1), (2, 2), (1, 2), (2, 1), (2, 2), (1, 1)]
    rows = np.array([(high, low, index) for index, (high, low) in enumerate(keys)], dtype=duplicates._KEYED)
    (tmp_path / "rows").write_bytes(rows.tobytes())
    found = np.concatenate(list(duplicates._repeated(tmp_path / "rows")))
    assert sorted(found.tolist()) == [(2, 0), (4, 1), (6, 3), (7, 0)]


@pytest.mark.parametrize("block", [1, 3, 100])
def test_examples_of_a_user_are_summed_over_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(spill, "BLOCK_ROWS", block)
    given = [(7, 2), (8, 1), (7, 1), (7, 1), (8, 3), (8, 1), (7, 1)]
    rows = np.array([(user, count, index) for index, (user, count) in enumerate(given)], dtype=duplicates._OF_USER)
    (tmp_path / "rows").write_bytes(rows.tobytes())
    found = np.concatenate(list(duplicates._beyond(tmp_path / "rows", 3)))
    assert sorted(found.tolist()) == [(3, -1), (4, -1), (5, -1), (6, -1)]
