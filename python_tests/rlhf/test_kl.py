"""KL control: the per-token sample and the adaptive coefficient against hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.rlhf.kl import adapt_kl_coef, response_kl


def test_response_kl_counts_only_the_response() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, math.nan], [-0.5, -0.5, -0.5]])
    reference = torch.tensor([[-1.5, -1.0, 7.0], [-0.5, -1.0, -0.25]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    expected = torch.tensor([[0.5, -1.0, 0.0], [0.0, 0.5, -0.25]])  # exact in float32
    assert torch.equal(response_kl(logprobs, reference, mask), expected)


@pytest.mark.parametrize(("observed", "factor"), [
    (6.0, 1.0),  # on target
    (6.6, 1.01),  # 10 % above: error 0.1, gain 0.1
    (5.4, 0.99),
    (60.0, 1.02),  # clipped at error 0.2
    (-3.0, 0.98),  # the sample estimate may be negative; clipped at -0.2
])
def test_adaptive_coefficient_by_hand(observed: float, factor: float) -> None:
    assert adapt_kl_coef(0.2, observed, 6.0) == pytest.approx(0.2 * factor, rel=1e-12)  # float64 rounding


def test_adaptive_coefficient_finds_its_target() -> None:
    """With a KL that falls as 1 / beta the controller settles where KL equals the target."""
    coefficient = 1.0
    for _ in range(600):
        coefficient = adapt_kl_coef(coefficient, 2.0 / coefficient, 8.0)
    assert 2.0 / coefficient == pytest.approx(8.0, rel=1e-3)  # a geometric approach: 600 steps leave less than 1e-3


def test_adaptive_coefficient_refuses_nonsense() -> None:
    with pytest.raises(ConfigError, match="kl_target must be positive, got 0"):
        adapt_kl_coef(0.1, 1.0, 0.0)
    with pytest.raises(ConfigError, match="nan"):
        adapt_kl_coef(0.1, math.nan, 6.0)
