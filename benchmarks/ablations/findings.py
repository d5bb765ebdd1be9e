"""Whether an effect that the paper reports appeared here: a difference, its uncertainty, and a verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CLEAR = 2.0  # standard errors


@dataclass(frozen=True)
class Finding:
    """One direction. differences: one a seed, positive where it holds. error: standard error of their mean."""

    claim: str
    source: str
    unit: str
    differences: Sequence[float]
    error: float

    @property
    def mean(self) -> float:
        return statistics.mean(self.differences)

    @property
    def verdict(self) -> str:
        """"appeared" or "opposite" when every seed agrees and the mean is clear of 0, else "not resolved"."""
        clear = abs(self.mean) > CLEAR * self.error
        if clear and min(self.differences) > 0:
            return "appeared"
        if clear and max(self.differences) < 0:
            return "opposite"
        return "not resolved"

    def as_dict(self) -> dict[str, object]:
        return {
            "claim": self.claim, "source": self.source, "unit": self.unit, "differences": list(self.differences),
            "mean": self.mean, "standard_error": self.error, "verdict": self.verdict,
        }


def finding(
    claim: str, source: str, unit: str, differences: Sequence[float], errors: Sequence[float] | None = None
) -> Finding:
    """Judge a direction.

    differences: one a seed. errors: standard error of each from the prompts it was measured on; left out for
    perplexity, whose text is fixed. The spread between seeds, where there are two or more, adds to them.
    """
    count = len(differences)
    sampling = math.sqrt(sum(e * e for e in errors)) / count if errors else 0.0
    seeds = statistics.stdev(differences) / math.sqrt(count) if count > 1 else 0.0
    return Finding(claim, source, unit, differences, math.hypot(sampling, seeds))
