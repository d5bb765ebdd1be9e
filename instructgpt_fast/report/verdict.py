"""What the diagnosis found in a run, with evidence, likely cause and remedy; or that it found nothing, and in what."""

from __future__ import annotations

from collections.abc import Sequence

from instructgpt_fast.diagnosis import RULES, Finding, diagnose
from instructgpt_fast.report.figure import plain_table
from instructgpt_fast.report.markup import Markup, element
from instructgpt_fast.report.read import RunFiles

__all__ = ["findings_of", "verdict"]


def findings_of(run: RunFiles) -> list[Finding] | None:
    """Worst first: as the run kept them, else (it did not finish, or did not diagnose itself) as its records show now.

    None when there is nothing to look at: no record, or a stage that is not known.
    """
    if run.findings is not None:
        return run.findings
    if run.stage is None or not run.records:
        return None
    return diagnose(run.records, run.stage, run.options)


def verdict(run: RunFiles) -> Markup:
    """The findings of a run as cards, worst first, and what was looked for."""
    found = findings_of(run)
    if found is None:
        why = "no metrics were recorded" if not run.records else "the stage of the run is not known"
        return element("p", f"Not diagnosed: {why}.", class_="absent")
    if not found:
        words = element("p", element("strong", "Nothing found"), f" in {len(run.records):,} records.")
        return element("div", words, _looked_for(run, found), class_="verdict")
    return element("div", *(_card(finding) for finding in found), _looked_for(run, found), class_="findings")


def _card(finding: Finding) -> Markup:
    where = element("small", f" {finding.name}, from step {finding.step:,}")
    return element(
        "article",
        element("h4", element("span", finding.severity, class_="severity"), " ", finding.title, where),
        element("p", finding.evidence),
        element("p", element("strong", "Likely: "), finding.cause) if finding.cause else None,
        element("p", element("strong", "Remedy: "), finding.remedy) if finding.remedy else None,
        class_=f"finding {finding.severity}",
    )


def _looked_for(run: RunFiles, found: Sequence[Finding]) -> Markup:
    """A folded table of the rules for the stage: found, not found, or not to be judged without its metric."""
    recorded = {name for record in run.records for name in record}
    named = {finding.name for finding in found}
    rules = [rule for rule in RULES if run.stage in rule.stages]
    rows: list[list[object]] = []
    for rule in rules:
        if rule.name in named:
            state = "found"
        elif recorded.isdisjoint(rule.metrics):
            state = "not judged: not recorded"
        else:
            state = "not found"
        rows.append([rule.title, state, ", ".join(rule.metrics)])
    return element(
        "details", element("summary", f"What was looked for ({len(rules)})"),
        plain_table(["finding", "state", "metrics"], rows), class_="looked",
    )
