"""Metric records as curves: steps and numbers, whatever is missing, repeated or not a number in the records."""

from __future__ import annotations

import math
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
        self._points: dict[str, dict[int, float]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in one record; where a metric was recorded twice at a step, the later one counts."""
        step = record.get("step")
        if isinstance(step, bool) or not isinstance(step, int):
            return
        for name, value in record.items():
            number = _number(value)
            if name != "step" and number is not None:
                self._points.setdefault(name, {})[step] = number

    def curve(self, name: str) -> Curve:
        """The curve of one metric, empty when it was never recorded."""
        return self.together(name)[0]

    def together(self, *names: str) -> list[Curve]:
        """Curves of several metrics at the steps at which all of them were recorded."""
        found = [self._points.get(name, {}) for name in names]
        steps = sorted(set(found[0]).intersection(*found[1:]))
        index = np.array(steps, dtype=np.int64)
        return [Curve(index, np.array([points[step] for step in steps], dtype=np.float64)) for points in found]


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if value in ("nan", "inf", "-inf"):
        # JSON has no word for these, so the log keeps them as text.
        return float(value)
    return None
