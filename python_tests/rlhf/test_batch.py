"""Packing and padding: nothing lost, nothing moved."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast.errors import DataError
from instructgpt_fast.rlhf.batch import chunks_by_tokens, pack, pad, padded_mask


def test_pack_lays_sequences_end_to_end() -> None:
    batch = pack([[1, 2], [3]], [[4], [5, 6, 7]])
    assert batch.tokens.tolist() == [1, 2, 4, 3, 5, 6, 7]
    assert batch.cu_seqlens.tolist() == [0, 3, 7]
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.loss_mask.tolist() == [False, False, True, False, True, True, True]
    assert len(batch) == 2


@pytest.mark.parametrize(("prompts", "responses", "word"), [([[]], [[1]], "prompt"), ([[1]], [[]], "response")])
def test_pack_refuses_what_has_no_token(prompts: list[list[int]], responses: list[list[int]], word: str) -> None:
    with pytest.raises(DataError, match=f"every {word} needs at least one token"):
        pack(prompts, responses)


def test_pad_follows_the_mask_and_passes_gradients() -> None:
    mask = padded_mask([2, 3, 1])
    assert mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    flat = torch.arange(1.0, 7.0, requires_grad=True)
    padded = pad(flat, mask)
    assert padded.tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0]]
    assert torch.equal(padded[mask], flat)
    weights = torch.tensor([[1.0, 2.0, 30.0], [3.0, 4.0, 5.0], [6.0, 30.0, 30.0]])
    (padded * weights).sum().backward()
    assert flat.grad is not None
    assert flat.grad.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("lengths", "limit", "expected"), [
    ([], 10, []),
    ([3, 3, 3], 6, [(0, 2), (2, 3)]),
    ([3, 3, 3], 100, [(0, 3)]),
    ([9, 2, 2, 9], 4, [(0, 1), (1, 3), (3, 4)]),  # longer than the limit: alone
    ([5], 1, [(0, 1)]),
])
def test_chunks_cover_everything_once(lengths: list[int], limit: int, expected: list[tuple[int, int]]) -> None:
    assert [(s.start, s.stop) for s in chunks_by_tokens(lengths, limit)] == expected
