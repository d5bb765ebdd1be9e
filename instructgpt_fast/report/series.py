"""Numbers of a run along its steps, and how many of them are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Series", "derived", "envelope", "number", "series_of", "smoothed", "thinned"]

DRAWN = 360  # points of one line: about one a pixel of a figure on a phone
TINY, HUGE = 1e-200, 1e200  # sizes outside are shown as 0 and as infinite
SMOOTHED_FROM = 60  # records from which a moving mean says more than the points


@dataclass(frozen=True)
class Series:
    """One metric along the steps.

    steps, values: f64 [N], steps not falling; a value that was not finite (written as text, "nan") is NaN or an
    infinity here too.
    """

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def finite(self) -> Series:
        """The records whose value is finite."""
        kept = np.isfinite(self.values)
        return Series(self.steps[kept], self.values[kept])

    @property
    def lost(self) -> np.ndarray:
        """f64 [M]: the steps whose value is not finite."""
        return self.steps[~np.isfinite(self.values)]


def number(value: object) -> float | None:
    """A metric as a number: text of a number, as values that are not finite are written, is read; None for the rest."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf
    if not TINY <= abs(found) <= HUGE:
        # Differences and squares of these leave float64; NaN stays as it is.
        return math.copysign(math.inf, found) if abs(found) > HUGE else found if math.isnan(found) else 0.0
    return found


def series_of(records: Sequence[Mapping[str, Any]], name: str) -> Series:
    """The records that hold the metric `name`; an empty series when none does."""
    found = [(record["step"], number(record[name])) for record in records if name in record]
    pairs = [(float(step), value) for step, value in found if value is not None]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return Series(table[:, 0], table[:, 1])


def derived(series: Series, function: Callable[[np.ndarray], np.ndarray]) -> Series:
    """The same steps with `function` of the values."""
    with np.errstate(all="ignore"):
        return Series(series.steps, np.asarray(function(series.values), dtype=np.float64))


def thinned(series: Series, limit: int = DRAWN) -> Series:
    """At most about `limit` of the records, so that a line through them looks as the line through all.

    The records are cut into stretches of equal count; of each the lowest and the highest value are kept, with the
    steps that they stand at, and one that is not finite where there is one. So no peak is lost and nothing is made up.
    """
    count = len(series)
    if count <= limit:
        return series
    kept = {0, count - 1}
    for stretch in np.array_split(np.arange(count), max(1, limit // 2)):
        values = series.values[stretch]
        finite = np.isfinite(values)
        if finite.any():
            kept |= {int(stretch[np.argmin(np.where(finite, values, math.inf))]),
                     int(stretch[np.argmax(np.where(finite, values, -math.inf))])}
        if not finite.all():
            kept.add(int(stretch[np.argmin(finite)]))
    chosen = np.array(sorted(kept))
    return Series(series.steps[chosen], series.values[chosen])


def envelope(
    steps: np.ndarray, low: np.ndarray, high: np.ndarray, limit: int = DRAWN
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At most limit / 2 places of the area between two lines, f64 [N] each: the widest of each stretch of records.

    A stretch with nothing finite has infinite edges.
    """
    if len(steps) <= limit // 2:
        return steps, low, high
    stretches = np.array_split(np.arange(len(steps)), limit // 2)
    lows = [np.where(np.isfinite(low[part]), low[part], np.inf).min() for part in stretches]
    highs = [np.where(np.isfinite(high[part]), high[part], -np.inf).max() for part in stretches]
    return np.array([steps[part].mean() for part in stretches]), np.array(lows), np.array(highs)


def smoothed(series: Series) -> tuple[Series, int] | None:
    """(centred moving mean, records in it) of the finite values; None for a series that is short enough to be read.

    At the ends the window is cut off, so the mean there is over fewer records.
    """
    values = series.finite.values
    if len(values) < SMOOTHED_FROM:
        return None
    width = 2 * (len(values) // 50) + 1
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - width // 2, 0), np.minimum(place + width // 2 + 1, len(values))
    return Series(series.finite.steps, (sums[high] - sums[low]) / (high - low)), width
