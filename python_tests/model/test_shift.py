"""The shift, against hand-written lists: which hidden state predicts which token, and which tokens count."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast.model import counted_rows, shift_packed


def hidden_of(*shape: int) -> torch.Tensor:
    """Hidden states that carry their own flat index, so that a result can be read."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(*shape, 1)


def pairs(hidden: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> list[tuple[int, int]]:
    """(index of the hidden state, token) of every counted row."""
    assert len(hidden) == len(targets) == len(mask)
    return [(int(h), int(t)) for h, t, m in zip(hidden[:, 0], targets, mask, strict=True) if m]


def test_packed() -> None:
    tokens = torch.tensor([10, 11, 12, 20, 30, 31])
    cu_seqlens = torch.tensor([0, 3, 4, 4, 6, 6], dtype=torch.int32)
    counted = pairs(*shift_packed(hidden_of(6), tokens, None, cu_seqlens))
    assert counted == [(0, 11), (1, 12), (4, 31)]


def test_packed_with_a_mask() -> None:
    tokens = torch.tensor([10, 11, 12, 20, 21])
    mask = torch.tensor([True, False, True, True, True])
    before = mask.clone()
    counted = pairs(*shift_packed(hidden_of(5), tokens, mask, torch.tensor([0, 3, 5], dtype=torch.int32)))
    assert counted == [(1, 12), (3, 21)]
    assert torch.equal(mask, before), "the caller's mask stays as it was"


def test_dense() -> None:
    tokens = torch.tensor([[10, 11, 12], [20, 21, 22]])
    assert pairs(*shift_packed(hidden_of(2, 3), tokens, None)) == [(0, 11), (1, 12), (3, 21), (4, 22)]
    mask = torch.tensor([[True, True, False], [True, False, True]])
    assert pairs(*shift_packed(hidden_of(2, 3), tokens, mask)) == [(0, 11), (4, 22)]


def test_hidden_states_are_not_copied() -> None:
    hidden = hidden_of(2, 3)
    assert shift_packed(hidden, torch.zeros(2, 3, dtype=torch.int64), None)[0].data_ptr() == hidden.data_ptr()


def test_counted_rows_know_their_place() -> None:
    tokens = torch.tensor([[10, 11, 12], [20, 21, 22]])
    mask = torch.tensor([[True, True, False], [False, True, True]])
    hidden, targets, index = counted_rows(hidden_of(2, 3), tokens, mask)
    assert hidden[:, 0].tolist() == [0.0, 3.0, 4.0]
    assert targets.tolist() == [11, 21, 22]
    assert tokens.view(-1)[index].tolist() == targets.tolist()


def test_gradient_reaches_the_predecessor_only() -> None:
    hidden = torch.randn(4, 3, requires_grad=True)
    mask = torch.tensor([False, False, True, False])
    rows, _, _ = counted_rows(hidden, torch.arange(4), mask, torch.tensor([0, 4], dtype=torch.int32))
    rows.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum(1).tolist() == [0.0, 3.0, 0.0, 0.0]


def test_errors() -> None:
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="must agree"):
        shift_packed(hidden_of(3, 2), tokens, None)
    with pytest.raises(ValueError, match="must agree"):
        shift_packed(hidden_of(2, 3), tokens, torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="need no cu_seqlens"):
        shift_packed(hidden_of(2, 3), tokens, None, torch.tensor([0, 6]))
    with pytest.raises(ValueError, match="need cu_seqlens"):
        shift_packed(hidden_of(6), tokens.view(-1), None)
