"""Metric records as curves: steps and numbers, whatever is missing, repeated or not a number in the records."""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Curves"]

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One metric: steps int64 [n], rising; values float64 [n], where a record said "nan" or "inf" these."""

    steps: NDArray[np.int64]
    values: Numbers

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> Curve:
        """The curve without the values that are no numbers."""
        kept = np.isfinite(self.values)
        return Curve(self.steps[kept], self.values[kept])

    def begun(self, count: int) -> float:
        """Mean of the first `count` values, or of as many as there are; NaN for an empty curve."""
        return float(self.values[:count].mean()) if len(self) else math.nan

    def trailing(self, span: int) -> Numbers:
        """Mean of each value and the span - 1 before it, float64 [n]; NaN where there are not so many yet."""
        result = np.full(len(self), np.nan)
        if len(self) >= span:
            with np.errstate(invalid="ignore"):  # both infinities in one window: NaN, as it should be
                result[span - 1:] = np.lib.stride_tricks.sliding_window_view(self.values, span).mean(axis=1)
        return result

    def trailing_median(self, span: int) -> Numbers:
        """As `trailing`, with the median, which one outlier does not move."""
        result = np.full(len(self), np.nan)
        if len(self) >= span:
            result[span - 1:] = np.median(np.lib.stride_tricks.sliding_window_view(self.values, span), axis=1)
        return result


class Curves:
    """All metrics of a run; records are added in the order in which they were written."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        """records: those of metrics.jsonl, {"step": 20, "loss": 3.1, ...}; one without a whole step is passed over."""
        # Steps and values in the order of the records: 16 bytes a number, so that a long run can be watched to its end.
        self._points: dict[str, tuple[array[int], array[float]]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in one record; where a metric was recorded twice at a step, the later one counts."""
        step = record.get("step")
        if isinstance(step, bool) or not isinstance(step, int) or abs(step) >= 1 << 63:
            return
        for name, value in record.items():
            number = _number(value)
            if name != "step" and number is not None:
                steps, values = self._points.setdefault(name, (array("q"), array("d")))
                steps.append(step)
                values.append(number)

    def curve(self, name: str) -> Curve:
        """The curve of one metric, empty when it was never recorded."""
        steps, values = self._points.get(name, (array("q"), array("d")))
        curve = Curve(np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64))
        if (np.diff(curve.steps) > 0).all():
            return curve
        unique, last = np.unique(curve.steps[::-1], return_index=True)
        return Curve(unique, curve.values[::-1][last])

    def together(self, *names: str) -> list[Curve]:
        """Curves of several metrics at the steps at which all of them were recorded."""
        found = [self.curve(name) for name in names]
        if all(np.array_equal(curve.steps, found[0].steps) for curve in found[1:]):
            return found
        common = functools.reduce(np.intersect1d, [curve.steps for curve in found])
        return [Curve(common, curve.values[np.isin(curve.steps, common)]) for curve in found]


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:  # a whole number of more than 308 digits: only a damaged log has one
            return math.inf if value > 0 else -math.inf
    if value in ("nan", "inf", "-inf"):
        # JSON has no word for these, so the log keeps them as text.
        return float(value)
    return None
