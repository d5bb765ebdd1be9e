"""What a rule is: a name, the words of docs/diagnosis.md, and a function that looks for it in the curves of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instructgpt_fast.diagnosis.curves import Curves
from instructgpt_fast.diagnosis.finding import Finding, Severity

__all__ = ["Options", "Rule", "Shown", "change", "first_true", "pair"]

# The resolved options of a run by name; may be empty, when only its metrics are known.
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """Where the curves show something: the step and a sentence with numbers.

    cause, remedy, severity: in the place of the rule's own where the options of the run say more.
    """

    step: int
    evidence: str
    cause: str = ""
    remedy: str = ""
    severity: Severity | None = None


@dataclass(frozen=True)
class Rule:
    """One thing that can go wrong. `seen` says in general what the metrics look like then.

    find: gives the first step that shows it, or None. It looks at each step with nothing but the records up to it, so
    that what was found stays found as the run goes on.
    """

    name: str
    title: str
    severity: Severity
    stages: tuple[str, ...]
    metrics: tuple[str, ...]
    seen: str
    cause: str
    remedy: str
    find: Callable[[Curves, Options], Shown | None]

    def finding(self, curves: Curves, options: Options) -> Finding | None:
        """The rule applied to a run."""
        shown = self.find(curves, options)
        if shown is None:
            return None
        return Finding(
            name=self.name, title=self.title, severity=shown.severity or self.severity, step=shown.step,
            evidence=shown.evidence, cause=shown.cause or self.cause, remedy=shown.remedy or self.remedy,
            metrics=self.metrics,
        )


def first_true(holds: NDArray[np.bool_]) -> int | None:
    """Index of the first True, or None."""
    return int(holds.argmax()) if holds.any() else None


def pair(before: float, after: float) -> str:
    """Two numbers with three digits: "12.1 to 30.5"."""
    return f"{before:.3g} to {after:.3g}"


def change(options: Options, name: str, factor: float) -> str:
    """An option with the value to try next: "learning_rate=8e-06 (now 8e-05)"; the direction alone without a value."""
    now = options.get(name)
    if isinstance(now, (int, float)) and not isinstance(now, bool) and now > 0:
        return f"{name}={now * factor:.3g} (now {now:.3g})"
    return f"a {'lower' if factor < 1 else 'higher'} {name}"
