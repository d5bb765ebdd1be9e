"""Advantages by hand on a 2 x 4 batch with a mask, and their whitening."""

from __future__ import annotations

import torch

from instructgpt_fast.rlhf.advantages import advantages_and_returns, whiten_advantages

MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])
REWARDS = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.5, -1.0, 7.0, 7.0]])
VALUES = torch.tensor([[0.5, 0.25, 0.5, 0.75], [1.0, 0.5, 9.0, 9.0]])


def test_by_hand_with_gamma_1_and_lambda_one_half() -> None:
    # Row 0, deltas: -0.25, 0.25, 0.25, 0.25; row 1: 0.5 + 0.5 - 1 = 0 and -1 - 0.5 = -1.5. Exact in binary.
    advantages, returns = advantages_and_returns(REWARDS, VALUES, MASK, gamma=1.0, lam=0.5)
    expected = torch.tensor([[-0.03125, 0.4375, 0.375, 0.25], [-0.75, -1.5, 0.0, 0.0]])
    assert torch.equal(advantages, expected)
    assert torch.equal(returns, torch.where(MASK, expected + VALUES, torch.zeros(2, 4)))


def test_lambda_1_gives_reward_to_go_minus_value() -> None:
    advantages, returns = advantages_and_returns(REWARDS, VALUES, MASK, gamma=1.0, lam=1.0)
    togo = torch.tensor([[1.0, 1.0, 1.0, 1.0], [-0.5, -1.0, 0.0, 0.0]])
    torch.testing.assert_close(returns, togo, rtol=0, atol=1e-6)  # float32: a value is subtracted and added back
    torch.testing.assert_close(advantages[MASK], (togo - VALUES)[MASK], rtol=0, atol=1e-6)


def test_whitened_over_the_minibatch() -> None:
    advantages, _ = advantages_and_returns(REWARDS, VALUES, MASK, gamma=1.0, lam=0.95)
    white = whiten_advantages(advantages, MASK)
    assert abs(white[MASK].mean().item()) < 1e-6  # float32 rounding of six numbers
    assert abs(white[MASK].var(unbiased=False).item() - 1.0) < 1e-5
    assert (white[~MASK] == 0).all()
