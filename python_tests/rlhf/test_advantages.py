"""Rewards and advantages by hand on a 2 x 4 batch with a mask, and their whitening."""

from __future__ import annotations

import torch

from instructgpt_fast.ops import ShapedGae
from instructgpt_fast.rlhf.advantages import shaped_advantages, whiten_advantages

MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])
REWARDS = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.5, -1.0, 7.0, 7.0]])
VALUES = torch.tensor([[0.5, 0.25, 0.5, 0.75], [1.0, 0.5, 9.0, 9.0]])


def of_rewards(lam: float, *, whiten_rewards: bool = False) -> ShapedGae:
    """With a weight of 1, a reference at 0 and no score, the penalty is the negated log-probability."""
    nothing = torch.zeros(2)
    return shaped_advantages(
        -REWARDS, torch.zeros(2, 4), nothing, VALUES, MASK, kl_coef=1.0, gamma=1.0, lam=lam,
        whiten_rewards=whiten_rewards,
    )


def test_score_on_the_last_token_and_kl_on_every_token() -> None:
    kl = torch.tensor([[0.5, -1.0, 2.0, 1.0], [4.0, 3.0, 9.0, 9.0]])
    scores, reference = torch.tensor([3.0, -1.0]), torch.full((2, 4), -4.0)
    result = shaped_advantages(reference + kl, reference, scores, VALUES, MASK, kl_coef=0.5, gamma=1.0, lam=1.0)
    # Exact in float32.
    assert torch.equal(result.kl, kl * MASK)
    assert torch.equal(result.rewards, torch.tensor([[-0.25, 0.5, -1.0, 3.0 - 0.5], [-2.0, -1.0 - 1.5, 0.0, 0.0]]))


def test_beta_zero_leaves_only_the_score() -> None:
    result = shaped_advantages(
        -REWARDS, VALUES, torch.tensor([3.0, -1.0]), VALUES, MASK, kl_coef=0.0, gamma=1.0, lam=1.0
    )
    assert torch.equal(result.rewards, torch.tensor([[0.0, 0.0, 0.0, 3.0], [0.0, -1.0, 0.0, 0.0]]))


def test_whitened_rewards_keep_their_mean_and_lead_to_the_advantages() -> None:
    plain, white = of_rewards(1.0), of_rewards(1.0, whiten_rewards=True)
    assert abs((white.rewards[MASK].mean() - plain.rewards[MASK].mean()).item()) < 1e-6  # float32 rounding
    assert abs(white.rewards[MASK].var(unbiased=False).item() - 1.0) < 1e-5
    assert (white.rewards[~MASK] == 0).all() and torch.equal(white.kl, plain.kl)
    # With lambda 1 the returns are the rewards to go.
    togo = white.rewards.flip(1).cumsum(1).flip(1) * MASK
    torch.testing.assert_close(white.returns, togo, rtol=0, atol=1e-6)


def test_by_hand_with_gamma_1_and_lambda_one_half() -> None:
    # Row 0, deltas: -0.25, 0.25, 0.25, 0.25; row 1: 0.5 + 0.5 - 1 = 0 and -1 - 0.5 = -1.5. Exact in binary.
    _, _, advantages, returns = of_rewards(0.5)
    expected = torch.tensor([[-0.03125, 0.4375, 0.375, 0.25], [-0.75, -1.5, 0.0, 0.0]])
    assert torch.equal(advantages, expected)
    assert torch.equal(returns, torch.where(MASK, expected + VALUES, torch.zeros(2, 4)))


def test_lambda_1_gives_reward_to_go_minus_value() -> None:
    _, _, advantages, returns = of_rewards(1.0)
    togo = torch.tensor([[1.0, 1.0, 1.0, 1.0], [-0.5, -1.0, 0.0, 0.0]])
    torch.testing.assert_close(returns, togo, rtol=0, atol=1e-6)  # float32: a value is subtracted and added back
    torch.testing.assert_close(advantages[MASK], (togo - VALUES)[MASK], rtol=0, atol=1e-6)


def test_whitened_over_the_minibatch() -> None:
    white = whiten_advantages(of_rewards(0.95).advantages, MASK)
    assert abs(white[MASK].mean().item()) < 1e-6  # float32 rounding of six numbers
    assert abs(white[MASK].var(unbiased=False).item() - 1.0) < 1e-5
    assert (white[~MASK] == 0).all()
