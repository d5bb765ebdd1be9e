"""Measures and their intervals against closed forms and printed tables, and by how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate.intervals import (
    bootstrap_interval,
    mean_interval,
    resampled_sums,
    share_difference_interval,
    share_interval,
    t_quantile,
)
from instructgpt_fast.evaluate.measure import Measure, mean_of, ratio_of


@pytest.mark.parametrize(("freedom", "tabled"), [
    (1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (19, 2.093), (30, 2.042), (40, 2.021),
    (41, 2.0195), (60, 2.000), (120, 1.980), (10**9, 1.959964),
])
def test_quantiles_of_t_are_the_tabled_ones(freedom: int, tabled: float) -> None:
    assert t_quantile(freedom) == pytest.approx(tabled, abs=6e-4)


def test_the_two_ways_to_a_quantile_meet() -> None:
    steps = [t_quantile(freedom) - t_quantile(freedom + 1) for freedom in range(36, 46)]
    assert all(a > b > 0 for a, b in zip(steps, steps[1:], strict=False))


def test_a_mean_by_hand() -> None:
    low, high = mean_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) or (math.nan, math.nan)
    # s = 1.5811, s / sqrt(5) = 0.7071, t(4) = 2.7764
    assert (low, high) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-4)


def test_none_and_all_reach_the_ends() -> None:
    for count in range(1, 300):
        low, high = share_interval(0, count) or (math.nan, math.nan)
        assert low == 0.0 and 0.0 < high < 1.0
        low, high = share_interval(count, count) or (math.nan, math.nan)
        assert 0.0 < low < 1.0 and high == 1.0


@pytest.mark.parametrize(("successes", "count", "low", "high"), [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
])
def test_wilson_intervals_as_newcombe_prints_them(successes: int, count: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3."""
    assert share_interval(successes, count) == pytest.approx((low, high), abs=5e-5)


def test_a_paired_difference_of_shares_by_hand() -> None:
    first = np.array([1.0] * 9 + [0.0])
    second = np.array([1.0] * 6 + [0.0] * 3 + [1.0])
    # 3 gained, 1 lost, n = 10: (4 - 2) / 12 +- 1.96 sqrt((6/12 - (2/12)^2) / 12)
    half = 1.959964 * math.sqrt((0.5 - 1 / 36) / 12)
    assert share_difference_interval(first, second) == pytest.approx((1 / 6 - half, 1 / 6 + half), abs=1e-6)


def test_no_disagreement_is_not_certainty() -> None:
    same = Measure("t", "accuracy", np.ones(8), bounds=(0.0, 1.0))
    found = same.difference(same)
    assert found.value == 0.0 and not found.clear
    assert found.interval is not None and found.interval[0] < -0.1 and found.interval[1] > 0.1


def test_the_bootstrap_of_a_mean_meets_t_for_many_items() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=400)
    low, high = bootstrap_interval(values[:, None], mean_of) or (math.nan, math.nan)
    by_t = mean_interval(values) or (math.nan, math.nan)
    # 1,000 resamples know a percentile to about 7 % of the width.
    assert low == pytest.approx(by_t[0], abs=0.15 * (by_t[1] - by_t[0]))
    assert high == pytest.approx(by_t[1], abs=0.15 * (by_t[1] - by_t[0]))


def test_resamples_are_seeded_and_keep_their_number() -> None:
    items = np.stack([np.arange(7.0), np.ones(7)], axis=1)
    first, again, other = resampled_sums(items, 0), resampled_sums(items, 0), resampled_sums(items, 1)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert (first[:, 1] == 7).all() and first[:, 0].std() > 1


def coverage(draw: str, count: int, trials: int) -> float:
    """How often the interval of `count` items holds the truth, which is 0.7, 1.0 and 2.0."""
    generator = np.random.default_rng([5, count])
    held = 0
    for _ in range(trials):
        if draw == "share":
            measure = Measure("t", "m", generator.random(count) < 0.7, bounds=(0.0, 1.0))
            truth = 0.7
        elif draw == "mean":
            measure, truth = Measure("t", "m", generator.gamma(4.0, 0.25, count)), 1.0
        else:
            weights = generator.integers(1, 6, count).astype(float)
            tops = weights * 2.0 + generator.normal(size=count) * weights
            measure, truth = Measure("t", "m", np.stack([tops, weights], axis=1), ratio_of), 2.0
        low, high = measure.interval() or (math.inf, -math.inf)
        held += low <= truth <= high
    return held / trials


@pytest.mark.parametrize(("draw", "count", "trials"), [
    ("share", 10, 600), ("share", 100, 600), ("mean", 10, 600), ("mean", 100, 600), ("ratio", 12, 90),
    ("ratio", 60, 90),
])
def test_intervals_hold_the_truth_as_often_as_they_say(draw: str, count: int, trials: int) -> None:
    error = math.sqrt(0.95 * 0.05 / trials)
    # Below by three standard errors and by 1.5 % for skew and few items; shares of 10 items come in steps.
    assert 0.95 - 0.015 - 3 * error <= coverage(draw, count, trials) <= 1.0


@pytest.mark.parametrize("count", [8, 60])
def test_differences_of_paired_shares_hold_the_truth(count: int) -> None:
    """Two models that agree on four items in five, and are right on 0.8 and on 0.3 of the others."""
    generator = np.random.default_rng(count)
    trials, held = 500, 0
    for _ in range(trials):
        both = generator.random(count) < 0.5
        apart = generator.random(count) < 0.2
        first, second = (np.where(apart, generator.random(count) < share, both) for share in (0.8, 0.3))
        found = Measure("t", "m", first, bounds=(0.0, 1.0)).difference(Measure("t", "m", second, bounds=(0.0, 1.0)))
        low, high = found.interval or (math.inf, -math.inf)
        held += low <= 0.2 * (0.8 - 0.3) <= high
    # At most wide, never narrow: three standard errors below 95 %.
    assert held / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)


def test_pairing_takes_out_what_the_items_share() -> None:
    generator = np.random.default_rng(11)
    hard = generator.normal(size=200) * 10
    better = Measure("t", "score", hard + 0.5 + generator.normal(size=200), data="d")
    worse = Measure("t", "score", hard + generator.normal(size=200), data="d")
    found = better.difference(worse)
    low, high = found.interval or (math.nan, math.nan)
    assert found.clear and low < 0.5 < high and high - low < 0.7
    own = better.interval() or (math.nan, math.nan)
    assert own[1] - own[0] > 2.0
    back = worse.difference(better)
    assert back.interval == pytest.approx((-high, -low)) and back.value == pytest.approx(-found.value)


def test_ratios_are_paired_by_one_resample() -> None:
    generator = np.random.default_rng(1)
    size = generator.integers(1, 9, 80).astype(float)
    shared = generator.normal(size=80) * size
    own = generator.normal(size=80) * 0.01
    first = Measure("t", "r", np.stack([shared + 0.3 * size + own, size], axis=1), ratio_of)
    second = Measure("t", "r", np.stack([shared, size], axis=1), ratio_of)
    found = first.difference(second)
    assert found.value == pytest.approx(0.3, abs=1e-3)
    assert found.interval is not None and found.interval == pytest.approx((0.3, 0.3), abs=2e-3)
    low, high = first.interval() or (math.nan, math.nan)
    assert high - low > 0.2


def test_few_items_and_none() -> None:
    one = Measure("t", "m", np.array([0.4]))
    assert one.value == 0.4 and one.interval() is None and one.difference(one).interval is None
    none = Measure("t", "m", np.empty(0))
    assert math.isnan(none.value) and none.interval() is None and none.over == 0
    two = Measure("t", "m", np.array([0.0, 1.0]), bounds=(0.0, 1.0))
    low, high = two.interval() or (math.nan, math.nan)
    assert 0.0 < low < 0.1 and 0.9 < high < 1.0
    empty = Measure("t", "r", np.zeros((5, 2)), ratio_of)
    assert math.isnan(empty.value) and empty.interval() is None


def test_items_without_variation_tell_no_interval() -> None:
    """All answers cut at one length: the next may be another, and how often is not known."""
    cut = Measure("t", "length", np.full(9, 64.1))  # whose mean is not exactly 64.1
    assert cut.value == pytest.approx(64.1) and cut.interval() is None
    found = cut.difference(Measure("t", "length", np.full(9, 60.3)))
    assert found.value == pytest.approx(3.8) and found.interval is None and not found.clear


def test_percent_is_the_share_times_a_hundred() -> None:
    values = np.array([1.0, 0.0, 1.0, 1.0])
    share = Measure("t", "m", values, bounds=(0.0, 1.0))
    percent = Measure("t", "m", values, bounds=(0.0, 1.0), scale=100.0)
    assert percent.value == 75.0 and percent.interval() == pytest.approx([100 * end for end in share.interval() or ()])
    other = Measure("t", "m", 1 - values, bounds=(0.0, 1.0), scale=100.0)
    found = percent.difference(other)
    assert found.value == 50.0 and found.interval is not None and found.interval[0] < 50.0 < found.interval[1] <= 100.0


def test_bounds_and_counts() -> None:
    measure = Measure("t", "f1", np.array([0.9, 1.0, 1.0, 0.1]), bounds=(0.0, 1.0), count=17)
    assert measure.over == 17 and (measure.interval() or (0, 0))[1] == 1.0
    assert Measure("t", "distinct", np.ones(4), independent=False).interval() is None


@pytest.mark.parametrize("other", [
    Measure("t", "m", np.ones(3), data="a"), Measure("t", "m", np.ones(4), data="b"),
    Measure("t", "n", np.ones(4), data="a"), Measure("u", "m", np.ones(4), data="a"),
])
def test_only_the_same_items_are_compared(other: Measure) -> None:
    with pytest.raises(ConfigError, match="difference: both must be one metric of the same items"):
        Measure("t", "m", np.ones(4), data="a").difference(other)


def test_the_whole_name_of_the_data_counts() -> None:
    """Messages show the beginning of it; what differs behind that is another file all the same."""
    first, second = (Measure("t", "m", np.ones(4), data=f"{'0' * 40}{end}") for end in "ab")
    with pytest.raises(ConfigError, match="one metric of the same items"):
        first.difference(second)


def test_a_bootstrap_leaves_out_as_much_at_either_end() -> None:
    items = np.random.default_rng(3).exponential(size=(15, 1))
    low, high = bootstrap_interval(items, mean_of) or (0.0, 0.0)
    assert bootstrap_interval(-items, mean_of) == pytest.approx((-high, -low))
