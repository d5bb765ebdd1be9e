"""The shuffled order: a permutation each pass, another one each pass and seed, and the same after a resume."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructgpt_fast.data import Order
from instructgpt_fast.errors import ConfigError, DataError


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 700), seed=st.integers(0, 2**63), start=st.integers(0, 5))
def test_every_pass_is_a_permutation(n: int, seed: int, start: int) -> None:
    order = Order(n, seed)
    for number in (start, 10**6):
        assert sorted(order.at(np.arange(number * n, (number + 1) * n))) == list(range(n))


def test_passes_and_seeds_differ() -> None:
    orders = [Order(1000, seed).take(1000) for seed in (0, 1, 2**40)]
    order = Order(1000, 0)
    orders += [order.at(np.arange(start, start + 1000)).tolist() for start in (1000, 2000)]
    assert len({tuple(items) for items in orders}) == 5


def test_the_order_never_changes() -> None:
    """A changed order would make a resumed run train on other data than the one it continues."""
    assert Order(10, 0).take(20) == [7, 9, 4, 1, 3, 2, 0, 6, 5, 8, 1, 6, 2, 9, 5, 3, 0, 7, 4, 8]
    assert Order(10**6, 7).take(4) == [617153, 774248, 55960, 616246]


def test_places_are_spread_evenly() -> None:
    n, trials = 64, 4000
    first = np.array([Order(n, seed).at([0, 1]) for seed in range(trials)])
    for column in first.T:
        counts = np.bincount(column, minlength=n)
        chi2 = float(((counts - trials / n) ** 2 / (trials / n)).sum())
        # 63 degrees of freedom: mean 63, deviation 11.2; five deviations would be chance once in a million.
        assert chi2 < 63 + 5 * 11.3
    correlation = np.corrcoef(first.T)[0, 1]
    assert abs(correlation) < 5 / trials**0.5  # deviation of a correlation of independent draws is 1/sqrt(trials)


def test_resume_continues_exactly() -> None:
    whole = Order(13, 5).take(50)
    order = Order(13, 5)
    first = order.take(21)
    state = json.loads(json.dumps(order.state()))
    resumed = Order(13, 5)
    resumed.restore(state)
    assert resumed.epoch == 1
    assert first + resumed.take(29) == whole


def test_resume_on_other_data_is_refused() -> None:
    state = Order(13, 5).state()
    with pytest.raises(DataError, match="n was 13, now 14"):
        Order(14, 5).restore(state)
    with pytest.raises(DataError, match="seed was 5, now 6"):
        Order(13, 6).restore(state)
    with pytest.raises(DataError, match="shuffle was True, now False"):
        Order(13, 5, shuffle=False).restore(state)


def test_unshuffled_and_empty() -> None:
    assert Order(3, 0, shuffle=False).take(7) == [0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(ConfigError, match="at least 1 item, got 0"):
        Order(0, 0)
