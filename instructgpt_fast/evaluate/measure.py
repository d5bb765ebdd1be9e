"""A metric of one task on one checkpoint, as a function of its items: from these come intervals and paired differences.

The items hold what the metric sums up: a mean one number an item, perplexity nats and tokens, BLEU its counts. The
metric is `value_of` of their sums. Two checkpoints measured on the same items are compared item by item, which takes
out what all models find easy or hard: the difference is known better than either value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate.intervals import (
    Interval,
    ValueOf,
    bootstrap_interval,
    mean_interval,
    share_difference_interval,
    share_interval,
)

__all__ = ["Difference", "Interval", "Measure", "mean_of", "ratio_of"]


def mean_of(sums: np.ndarray, count: int) -> float:
    """Mean of the items' only number."""
    return float(sums[0]) / count if count else math.nan


def ratio_of(sums: np.ndarray, count: int) -> float:
    """Sum of the items' first number over the sum of their second; nan where that is 0."""
    return float(sums[0] / sums[1]) if sums[1] else math.nan


@dataclass(frozen=True)
class Difference:
    """How much one checkpoint's value lies above another's on the same items, with a 95 % interval where there is one.

    `clear` is True when the interval leaves 0 out.
    """

    value: float
    interval: Interval | None

    @property
    def clear(self) -> bool:
        """Whether chance alone would rarely make such a difference."""
        return self.interval is not None and (self.interval[0] > 0.0 or self.interval[1] < 0.0)


@dataclass(frozen=True, eq=False)
class Measure:
    """One metric of one task on one checkpoint.

    items: float64 [N, S], or [N] for a mean. value_of: sums over the items [S] and N -> the metric; `mean_of`,
        `ratio_of`, or a function of one's own that takes any sums which a resample may have.
    higher_is_better: for tables of differences; None where neither is. unit: "", "%", "nats", "bits", "tokens", ...
    bounds: least and greatest possible value; intervals are kept within. scale: what value, interval and difference are
        multiplied by at the end, 100 for a share that is told in percent; the bounds are those before.
    data: names the items (the sha256 of their file and what was taken of it, for metrics per token behind the
        tokenizer's fingerprint); differences are of equal data alone.
    count: what the table says the number averages over, when that is not N.
    independent: False for a metric that is no function of sums over items (distinct words of all answers): no interval.
    details: how it was computed, for the record (sacrebleu's signature).
    """

    task: str
    metric: str
    items: np.ndarray
    value_of: ValueOf = mean_of
    higher_is_better: bool | None = True
    unit: str = ""
    bounds: Interval = (-math.inf, math.inf)
    data: str = ""
    count: int | None = None
    independent: bool = True
    scale: float = 1.0
    details: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        items = np.asarray(self.items, dtype=np.float64)
        object.__setattr__(self, "items", items.reshape(len(items), -1) if items.size else items.reshape(0, 1))

    @property
    def value(self) -> float:
        """The metric over all items; nan over none."""
        return self.scale * self.value_of(self.items.sum(axis=0), len(self.items)) if len(self.items) else math.nan

    @property
    def over(self) -> int:
        """How many things the number averages over."""
        return len(self.items) if self.count is None else self.count

    @property
    def is_share(self) -> bool:
        """Whether it is a mean of zeros and ones."""
        return self.value_of is mean_of and bool(np.isin(self.items, (0.0, 1.0)).all()) and self.bounds == (0.0, 1.0)

    def interval(self) -> Interval | None:
        """Low and high end of the 95 % interval; None where the items do not tell.

        That is: fewer than two items, items that show no variation (all answers of one length), and metrics that are
        no function of sums over items.
        """
        if not self.independent or len(self.items) < 2:
            return None
        if self.is_share:
            found = share_interval(float(self.items.sum()), len(self.items))
        elif self.value_of is mean_of:
            found = mean_interval(self.items[:, 0])
        else:
            found = bootstrap_interval(self.items, self.value_of)
        if found is None or not _varies(found):
            return None
        return self.scale * max(found[0], self.bounds[0]), self.scale * min(found[1], self.bounds[1])

    def difference(self, other: Measure) -> Difference:
        """This value minus `other`'s, paired item by item: t of the differences for means, else a paired bootstrap.

        Differences that are the same on every item tell no interval. Raises ConfigError unless both are the same metric
        of the same items.
        """
        if (self._identity(), self.data) != (other._identity(), other.data):
            raise ConfigError(
                f"difference: both must be one metric of the same items, got {self._identity()} and "
                f"{other._identity()}; evaluate both checkpoints with the same task and data, and compare metrics "
                "per token under one tokenizer only."
            )
        value = self.value - other.value
        if not self.independent or not other.independent:
            return Difference(value, None)
        found = self._difference_interval(other)
        if found is None or not _varies(found):
            return Difference(value, None)
        return Difference(value, (self.scale * found[0], self.scale * found[1]))

    def _difference_interval(self, other: Measure) -> Interval | None:
        if self.is_share and other.is_share:
            return share_difference_interval(self.items[:, 0], other.items[:, 0])
        if self.value_of is mean_of:
            return mean_interval(self.items[:, 0] - other.items[:, 0])
        width = self.items.shape[1]

        def gap(sums: np.ndarray, count: int) -> float:
            return self.value_of(sums[:width], count) - other.value_of(sums[width:], count)

        return bootstrap_interval(np.concatenate([self.items, other.items], axis=1), gap)

    def _identity(self) -> str:
        data = f" of {self.data[:12]}" if self.data else ""
        return f"{self.task}/{self.metric} over {len(self.items)} items{data}"


def _varies(interval: Interval) -> bool:
    """Whether the ends lie further apart than rounding of equal numbers puts them."""
    low, high = interval
    return high - low > 1e-12 * (abs(low) + abs(high))
