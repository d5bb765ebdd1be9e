"""Diagnosis: what the metrics of a run say went wrong, with the likely cause and the remedy; no torch, no state."""

from instructgpt_fast.diagnosis.diagnose import RULES, Watch, diagnose
from instructgpt_fast.diagnosis.finding import FINDINGS_FILE, Finding, Severity, read_findings, write_findings
from instructgpt_fast.diagnosis.thresholds import THRESHOLDS, Threshold

__all__ = [
    "FINDINGS_FILE",
    "RULES",
    "THRESHOLDS",
    "Finding",
    "Severity",
    "Threshold",
    "Watch",
    "diagnose",
    "read_findings",
    "write_findings",
]
