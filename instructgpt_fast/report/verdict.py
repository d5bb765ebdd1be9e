"""What the diagnosis found in a run, with evidence, likely cause and remedy; or that it found nothing, and in what."""

from __future__ import annotations

from instructgpt_fast.diagnosis import Finding
from instructgpt_fast.report.markup import Markup, element
from instructgpt_fast.report.read import RunFiles

__all__ = ["verdict"]


def verdict(run: RunFiles) -> Markup:
    """The findings of a run as cards, worst first."""
    if run.findings is None:
        return element("p", "Not diagnosed: the run has no findings.json.", class_="absent")
    if not run.findings:
        return element("p", element("strong", "Nothing found."), class_="verdict good")
    return element("div", *(_card(finding) for finding in run.findings), class_="findings")


def _card(finding: Finding) -> Markup:
    return element(
        "article",
        element("h4", element("span", finding.severity, class_="severity"), " ", finding.title,
                element("small", f" {finding.name}, from step {finding.step:,}")),
        element("p", finding.evidence),
        element("p", element("strong", "Likely: "), finding.cause) if finding.cause else None,
        element("p", element("strong", "Remedy: "), finding.remedy) if finding.remedy else None,
        class_=f"finding {finding.severity}", id=None,
    )
