"""What the diagnosis found in a run, with evidence, likely cause and remedy; or that it found nothing, and in what."""

from __future__ import annotations

import math
from collections.abc import Sequence

from instructgpt_fast.diagnosis import RULES, Finding, diagnose
from instructgpt_fast.diagnosis.rule import Rule
from instructgpt_fast.report.figure import plain_table
from instructgpt_fast.report.markup import Markup, element
from instructgpt_fast.report.read import RunFiles
from instructgpt_fast.report.series import number

__all__ = ["findings_of", "verdict"]


def findings_of(run: RunFiles) -> list[Finding] | None:
    """Worst first: as the run kept them, else (it did not finish, or did not diagnose itself) as its records show now.

    None when there is nothing to look at: no record with a finite number that a rule asks for, or a stage that is not
    known.
    """
    found = [] if run.stopped is None else [run.stopped]
    if run.findings is not None:
        found += run.findings
    elif run.stage is not None:
        found += diagnose(run.records, run.stage, run.options)
    judged = not _finite(run).isdisjoint(name for rule in _rules(run) for name in rule.metrics)
    return found if found or judged else None


def _rules(run: RunFiles) -> list[Rule]:
    return [rule for rule in RULES if run.stage in rule.stages]


def _finite(run: RunFiles) -> set[str]:
    """Names of the metrics with a finite number in some record."""
    return {
        name for record in run.records for name, value in record.items()
        if (found := number(value)) is not None and math.isfinite(found)
    }


def verdict(run: RunFiles) -> Markup:
    """The findings of a run as cards, worst first, and what was looked for."""
    found = findings_of(run)
    if found is None:
        why = (
            "no metrics were recorded" if not run.records else "the stage of the run is not known" if run.stage is None
            else "no record holds a finite number of what is looked at, so something is badly wrong"
        )
        return element("p", f"Not diagnosed: {why}.", class_="absent")
    if not found:
        words = element("p", element("strong", "Nothing found"), f" in {len(run.records):,} records.")
        return element("div", words, _looked_for(run, found), class_="verdict")
    # What follows from a finding has its remedy, which is said once.
    first = {finding.remedy: finding for finding in reversed(found)}
    cards = [_card(finding, told=first[finding.remedy] is not finding) for finding in found]
    return element("div", *cards, _looked_for(run, found), class_="findings")


def _card(finding: Finding, *, told: bool) -> Markup:
    """told: a card above has the same remedy."""
    where = element("small", f" {finding.name}, from step {finding.step:,}")
    return element(
        "article",
        element("h4", element("span", finding.severity, class_="severity"), " ", finding.title, where),
        element("p", finding.evidence),
        element("p", element("strong", "Likely: "), finding.cause) if finding.cause else None,
        element("p", element("strong", "Remedy: "), finding.remedy) if finding.remedy and not told else None,
        class_=f"finding {finding.severity}",
    )


def _looked_for(run: RunFiles, found: Sequence[Finding]) -> Markup:
    """A folded table of the rules for the stage: found, not found, or not to be judged without its metric."""
    recorded = {name for record in run.records for name in record}
    finite = _finite(run)
    named = {finding.name for finding in found}
    rows: list[list[object]] = []
    for rule in _rules(run):
        if rule.name in named:
            state = "found"
        elif recorded.isdisjoint(rule.metrics):
            state = "not judged: not recorded"
        elif finite.isdisjoint(rule.metrics):
            state = "not judged: not finite"
        else:
            state = "not found"
        rows.append([rule.title, state, ", ".join(rule.metrics)])
    return element(
        "details", element("summary", f"What was looked for ({len(rows)})"),
        plain_table(["finding", "state", "metrics"], rows), class_="looked",
    )
