"""Schedules at the points that the papers print, worked out by hand."""

from __future__ import annotations

import pytest

from instructgpt_fast.optim import constant_with_warmup, cosine_to_fraction, gpt3_batch_tokens, gpt3_learning_rate

# Every value here is a closed form; float64 arithmetic keeps 15 digits.
EXACT = 1e-12


def test_cosine_without_warmup() -> None:
    assert cosine_to_fraction(0, 100, 2.0) == 2.0
    assert cosine_to_fraction(50, 100, 2.0) == pytest.approx(0.2 + 1.8 / 2, rel=EXACT)
    assert cosine_to_fraction(25, 100, 2.0) == pytest.approx(0.2 + 1.8 * (1 + 0.5**0.5) / 2, rel=EXACT)
    assert cosine_to_fraction(100, 100, 2.0) == pytest.approx(0.2, rel=EXACT)
    assert cosine_to_fraction(500, 100, 2.0) == pytest.approx(0.2, rel=EXACT)
    assert cosine_to_fraction(100, 100, 2.0, floor=0.0) == pytest.approx(0.0, abs=EXACT)


def test_cosine_with_warmup() -> None:
    rates = [cosine_to_fraction(step, 14, 1.0, warmup=4) for step in range(15)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], rel=EXACT)
    assert rates[9] == pytest.approx(0.55, rel=EXACT)
    assert rates[14] == pytest.approx(0.1, rel=EXACT)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_a_run_that_is_all_warmup_still_learns() -> None:
    assert [cosine_to_fraction(s, 2, 1.0, warmup=2) for s in (0, 1)] == pytest.approx([1 / 3, 2 / 3], rel=EXACT)


def test_constant_with_warmup() -> None:
    rates = [constant_with_warmup(step, 1.0, 10) for step in range(12)]
    assert rates == pytest.approx([0.1, 0.19, 0.28, 0.37, 0.46, 0.55, 0.64, 0.73, 0.82, 0.91, 1.0, 1.0], rel=EXACT)
    assert constant_with_warmup(0, 3.0, 0) == 3.0


def test_gpt3_rate() -> None:
    assert gpt3_learning_rate(0, 6e-4) == 0.0
    assert gpt3_learning_rate(187.5e6, 6e-4) == pytest.approx(3e-4, rel=1e-5)  # the cosine has fallen by 1e-6 there
    assert gpt3_learning_rate(375e6, 6e-4) == pytest.approx(6e-4, rel=1e-5)
    assert gpt3_learning_rate(130e9, 6e-4) == pytest.approx(6e-4 * 0.55, rel=EXACT)
    assert gpt3_learning_rate(260e9, 6e-4) == pytest.approx(6e-5, rel=EXACT)
    assert gpt3_learning_rate(300e9, 6e-4) == pytest.approx(6e-5, rel=EXACT)
    assert gpt3_learning_rate(0, 6e-4, warmup_tokens=0) == 6e-4


def test_gpt3_batch() -> None:
    assert gpt3_batch_tokens(0, 500_000, ramp_tokens=4e9) == 32_000
    assert gpt3_batch_tokens(2e9, 500_000, ramp_tokens=4e9) == pytest.approx(266_000, rel=EXACT)
    assert gpt3_batch_tokens(4e9, 500_000, ramp_tokens=4e9) == 500_000
    assert gpt3_batch_tokens(0, 8_000, ramp_tokens=4e9) == 8_000
