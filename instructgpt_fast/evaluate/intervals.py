"""95 % intervals: Student's t for means, score intervals for shares, a seeded bootstrap for everything else.

Every interval takes the items as drawn independently from what the task stands for. With few items it grows wider
rather than narrower than it should be, and with one item there is none.

Not covered: items that depend on one another (sentences of one document, answers to one prompt): join them to one
item first, or the interval is too narrow. Several comparisons at once: one in twenty misses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

Interval = tuple[float, float]
ValueOf = Callable[[np.ndarray, int], float]
"""Sums over the items (float64 [S]) and their number -> the metric."""

Z95 = NormalDist().inv_cdf(0.975)  # two-sided 95 % quantile of the normal distribution
RESAMPLES = 1000
BOOTSTRAP_SEED = 0


def t_quantile(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t with `freedom` >= 1 degrees of freedom, to 1e-6.

    Exact distribution up to 40 degrees (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4), the expansion 26.7.5 beyond.
    """
    if freedom > 40:
        z = Z95
        terms = (
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
        )
        return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
    low, high = 0.0, 16.0  # one degree of freedom has 12.7
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def _t_inside(t: float, freedom: int) -> float:
    """Probability that |T| < t."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def mean_interval(values: np.ndarray) -> Interval | None:
    """Interval of a mean by Student's t; values: float64 [N]. None for fewer than two."""
    count = len(values)
    if count < 2:
        return None
    mean = float(values.mean())
    half = t_quantile(count - 1) * float(values.std(ddof=1)) / math.sqrt(count)
    return mean - half, mean + half


def share_interval(successes: float, count: int) -> Interval | None:
    """Interval of a share by Wilson's score (Wilson 1927): within 0 and 1, and wide where all or none succeed."""
    if count < 1:
        return None
    share, z2 = successes / count, Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low, high = middle - half, middle + half
    # Rounding must not keep the ends from 0 and 1 where none or all succeed.
    return 0.0 if successes == 0 else max(0.0, low), 1.0 if successes == count else min(1.0, high)


def share_difference_interval(first: np.ndarray, second: np.ndarray) -> Interval | None:
    """Interval of the difference first - second of two shares on the same items; both 0 or 1, [N].

    Adjusted Wald interval for paired shares (Bonett and Price 2012, J. Educ. Behav. Stat. 37, eq. 9): one item is added
    to each of the two ways to disagree, so that no disagreement at all does not pass for certainty.
    """
    count = len(first)
    if count < 2:
        return None
    gained = (float(((first == 1) & (second == 0)).sum()) + 1) / (count + 2)
    lost = (float(((first == 0) & (second == 1)).sum()) + 1) / (count + 2)
    half = Z95 * math.sqrt((gained + lost - (gained - lost) ** 2) / (count + 2))
    return max(-1.0, gained - lost - half), min(1.0, gained - lost + half)


def bootstrap_interval(items: np.ndarray, value_of: ValueOf, *, seed: int = BOOTSTRAP_SEED) -> Interval | None:
    """Interval of a function of sums by resampling whole items; items: float64 [N, S]. None for fewer than two.

    Percentiles of RESAMPLES values, moved outwards for few items as Student's t is (the expanded percentile interval;
    Hesterberg 2015, Am. Stat. 69, section 5.3).
    """
    count = len(items)
    if count < 2:
        return None
    values = [value_of(sums, count) for sums in resampled_sums(items, seed)]
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return None
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * t_quantile(count - 1))
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def resampled_sums(items: np.ndarray, seed: int) -> np.ndarray:
    """Sums over items drawn with replacement: float64 [RESAMPLES, S]. Which items depends on N and the seed alone."""
    count = len(items)
    generator = np.random.default_rng([seed, count])
    sums = np.empty((RESAMPLES, items.shape[1]))
    for place in range(RESAMPLES):
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        sums[place] = times @ items
    return sums
