"""Axes of a figure: from numbers to places, round numbers to label, and numbers as people write them."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Axis", "axis_over", "labels", "shown", "step_shown"]


def shown(value: float, digits: int = 3) -> str:
    """A number for a label: `digits` significant ones, k, M, G for thousands, a true minus; not finite as a word."""
    if not math.isfinite(value):
        return str(float(value))
    size = abs(value)
    if size >= 10_000:
        for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size >= limit:
                text = f"{value / limit:.{digits}g}{letter}"
                break
    elif size >= 1000:
        text = f"{value:,.0f}"
    elif size != 0 and size < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    else:
        text = f"{value:.{digits}g}"
    return "0" if text in ("-0", "0") else text.replace("-", "\u2212")


def step_shown(step: float) -> str:
    """A step with all its digits: 61,803."""
    return f"{step:,.0f}"


def labels(values: list[float]) -> list[str]:
    """Words for the values of an axis, with as many digits as tell them apart."""
    tried = ([shown(value, digits) for value in values] for digits in range(3, 12))
    return next((words for words in tried if len(set(words)) == len(values)), [str(value) for value in values])


@dataclass(frozen=True)
class Axis:
    """From values to units of the drawing.

    low, high: the values at the ends, low < high. first, last: their places. log: places follow the logarithm.
    """

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where `value` stands, in units of the drawing; values outside are put at the end that is nearer."""
        low, high, here = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, here = math.log(low), math.log(high), math.log(here)
        return self.first + (here - low) / (high - low) * (self.last - self.first)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values to label, about `count` of them."""
        if self.log:
            found = self._decades()
            if len(found) >= 2:
                return found
        step = _round_step((self.high - self.low) / max(count - 1, 1))
        first = math.ceil(self.low / step - 1e-9)
        values = [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [value for value in values if not self.log or value > 0]

    def _decades(self) -> list[float]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if high - low <= 2 else (1,)
        every = max(1, (high - low) // 5)
        return [
            factor * 10.0**power for power in range(low, high + 1, every) for factor in factors
            if self.low <= factor * 10.0**power <= self.high
        ]


def axis_over(
    low: float, high: float, first: float, last: float, *, log: bool = False, hold: tuple[float, ...] = ()
) -> Axis:
    """An axis that holds low .. high and the values `hold`, with a little room; one value alone gets room around it."""
    low, high = min(low, *hold) if hold else low, max(high, *hold) if hold else high
    if log and low > 0:
        low, high = (low / 1.5, high * 1.5) if high / low < 1.2 else (low / 1.05, high * 1.05)
        return Axis(low, high, first, last, log=True)
    if high - low <= 1e-12 * max(abs(low), abs(high)) or high == low:
        room = max(abs(low) * 0.1, 1e-6 if low else 1.0)
    else:
        room = (high - low) * 0.05
    # A quantity that is never negative is not shown with room below zero.
    bottom = 0.0 if low >= 0 and low - room < 0 else low - room
    return Axis(bottom, high + room, first, last)


def _round_step(size: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, not below `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= size * 0.999)
