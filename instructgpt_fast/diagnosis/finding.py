"""A finding: what went wrong in a run, where it is seen, why it probably happens and what to do; and findings.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.files import atomic_write

__all__ = ["FINDINGS_FILE", "Finding", "Severity", "read_findings", "write_findings"]

FINDINGS_FILE = "findings.json"

# "note": expected, and worth knowing. "warning": the result suffers. "error": the run cannot be used as it is.
Severity = Literal["note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that the metrics of a run show.

    name: of the rule, for example "kl_runaway". title: the same in words. step: the record that showed it first.
    evidence: one sentence with numbers and steps. cause: the likely one. remedy: options with values.
    metrics: names in metrics.jsonl that show it, the first one foremost.
    """

    name: str
    title: str
    severity: Severity
    step: int
    evidence: str
    cause: str
    remedy: str
    metrics: tuple[str, ...] = ()

    def text(self) -> str:
        """The finding for a terminal: what is seen, then on lines of their own the likely cause and the remedy."""
        head = f"{self.severity}: {self.title} (step {self.step}). {self.evidence}"
        return f"{head}\n    likely cause: {self.cause}\n    remedy: {self.remedy}"


def read_findings(run_dir: str | Path) -> list[Finding] | None:
    """The findings that a run ended with, worst first; None for a run that kept none (not finished, or not asked)."""
    path = Path(run_dir) / FINDINGS_FILE
    if not path.exists():
        return None
    known = {field.name for field in dataclasses.fields(Finding)}
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["findings"]
    found = [Finding(**{name: value for name, value in row.items() if name in known}) for row in rows]
    return [dataclasses.replace(finding, metrics=tuple(finding.metrics)) for finding in found]


def write_findings(run_dir: Path, findings: Sequence[Finding]) -> None:
    """Write findings.json whole: {"findings": [{"name", "title", ...}]}. Raises CheckpointError."""
    text = json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=1)
    atomic_write(run_dir / FINDINGS_FILE, text + "\n", error=CheckpointError)
