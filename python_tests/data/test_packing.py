"""Sequences laid end to end, and shared out among rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instructgpt_fast.data import pack_bins, pack_encoded
from instructgpt_fast.errors import DataError
from instructgpt_fast.tokenizer import Encoded


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=80))
def test_bins_hold_everything_once_and_are_nearly_full(lengths: list[int]) -> None:
    rows = pack_bins(lengths, 50)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 50 for row in rows)
    assert rows == sorted(rows) and all(row == sorted(row) for row in rows)
    fewest = -(-sum(lengths) // 50)
    # Best fit decreasing: at most 11/9 of the optimum and 4 rows (Johnson et al. 1974); the optimum of long items
    # (none fits beside another) is their number, which the sum alone does not see.
    optimum = max(fewest, sum(length > 25 for length in lengths))
    assert len(rows) <= max(1, 11 / 9 * optimum + 4)


def test_bins_by_hand() -> None:
    assert pack_bins([6, 3, 5, 4, 2], 10) == [[0, 3], [1, 2, 4]]
    assert pack_bins([], 10) == []
    with pytest.raises(DataError, match="must fit a row of 10 tokens, got 11 at index 1"):
        pack_bins([3, 11], 10)


def test_packed_examples() -> None:
    examples = [Encoded([1, 2, 3], [False, True, True]), Encoded([4], [True]), Encoded([5, 6], [False, True])]
    packed = pack_encoded(examples)
    assert packed["tokens"].tolist() == [1, 2, 3, 4, 5, 6] and packed["tokens"].dtype == torch.int64
    assert packed["cu_seqlens"].tolist() == [0, 3, 4, 6] and packed["cu_seqlens"].dtype == torch.int32
    assert packed["loss_mask"].tolist() == [False, True, True, True, False, True]
    assert packed["loss_mask"].dtype == torch.bool
    assert pack_encoded([])["cu_seqlens"].tolist() == [0]
