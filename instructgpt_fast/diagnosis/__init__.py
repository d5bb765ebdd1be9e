"""Diagnosis: what the metrics of a run say went wrong, with the likely cause and the remedy; no torch, no state."""

from instructgpt_fast.diagnosis.finding import FINDINGS_FILE, Finding, Severity, read_findings, write_findings

__all__ = ["FINDINGS_FILE", "Finding", "Severity", "read_findings", "write_findings"]
