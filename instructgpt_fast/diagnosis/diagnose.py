"""From the metric records of a run to its findings: at once when it is over, or one record after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from instructgpt_fast.diagnosis import answers, losses, updates
from instructgpt_fast.diagnosis.curves import Curves
from instructgpt_fast.diagnosis.finding import Finding
from instructgpt_fast.diagnosis.rule import Options, Rule

__all__ = ["RULES", "Watch", "diagnose"]

RULES: tuple[Rule, ...] = (*answers.RULES, *updates.RULES, *losses.RULES)

_ORDER = {"error": 0, "warning": 1, "note": 2}

# What one fault brings about: found after it, these are its consequences and go away with it.
CONSEQUENCES = {
    "learning_rate_too_high": {
        "kl_runaway", "length_blow_up", "length_collapse", "eos_collapse", "entropy_collapse", "value_not_learning",
        "clip_fraction_high", "objective_falling", "loss_diverging", "reward_hacking_by_length",
    },
    "reward_hacking_by_length": {"length_blow_up", "eos_collapse"},
    "kl_runaway": {"length_blow_up", "length_collapse", "eos_collapse", "entropy_collapse", "objective_falling"},
}

# Looking costs time in proportion to the records, so a run is looked at again when it has grown by this share: at every
# record up to 128, and all looks of a long run together cost about as much as 64 at its end.
GROWN = 64


def diagnose(
    records: Iterable[Mapping[str, Any]], stage: str, options: Options | None = None
) -> list[Finding]:
    """What the metrics of a run show to be wrong: worst first, causes before what they bring about, none when healthy.

    records: of metrics.jsonl, as `read_metrics` returns them; metrics may be missing or "nan". stage: "pretrain",
    "sft", "reward" or "ppo". options: the resolved options of the run by name, with which remedies name values.
    What is found in the first records of a run stays found with more of them.
    """
    return _apply(Curves(records), stage, options or {})


def _apply(curves: Curves, stage: str, options: Options) -> list[Finding]:
    known = {**options, "stage": stage}
    found = [rule.finding(curves, known) for rule in RULES if stage in rule.stages]
    by_name = {finding.name: finding for finding in found if finding is not None}
    linked = [_linked(finding, by_name) for finding in by_name.values()]
    return sorted(linked, key=lambda f: (_ORDER[f.severity], _source(f, by_name) is not None, f.step))


def _linked(finding: Finding, found: Mapping[str, Finding]) -> Finding:
    source = _source(finding, found)
    if source is None:
        return finding
    return replace(
        finding, cause=f"It follows from another finding: {source.title[0].lower()}{source.title[1:]}.",
        remedy=source.remedy,
    )


def _source(finding: Finding, found: Mapping[str, Finding]) -> Finding | None:
    """The finding that brought this one about: the first in CONSEQUENCES that was there before it."""
    for name, brought in CONSEQUENCES.items():
        if finding.name in brought and name in found and found[name].step <= finding.step:
            return found[name]
    return None


class Watch:
    """Follows a run and tells each new finding once."""

    def __init__(self, stage: str, options: Options, tell: Callable[[str], None]) -> None:
        """tell: gets each new finding in words."""
        self._stage, self._options, self._tell = stage, options, tell
        self._curves = Curves()
        self._count = self._next = 0
        self._told: set[str] = set()

    def replay(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Begin with what a resumed run recorded before; what that shows has been told."""
        self._curves, self._count, self._next = Curves(records), len(records), 0
        self._told = {finding.name for finding in self.findings()}

    def feed(self, record: Mapping[str, Any]) -> None:
        """Take in the next record, and tell what it shows."""
        self._curves.add(record)
        self._count += 1
        if self._count < self._next:
            return
        self._next = self._count + max(1, self._count // GROWN)
        self._tell_new(self.findings())

    def findings(self) -> list[Finding]:
        """Everything found so far, worst first."""
        return _apply(self._curves, self._stage, self._options)

    def conclude(self) -> list[Finding]:
        """Tell what the last records show, and return everything found."""
        found = self.findings()
        self._tell_new(found)
        return found

    def _tell_new(self, found: Sequence[Finding]) -> None:
        for finding in found:
            if finding.name not in self._told:
                self._told.add(finding.name)
                self._tell(finding.text())
