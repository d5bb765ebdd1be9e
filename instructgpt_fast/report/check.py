"""Whether what stands in a run's files is what the report draws; damage is found here and not in a figure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from instructgpt_fast.diagnosis import Finding, read_findings
from instructgpt_fast.train.records import RunRecord, Sample, read_run

__all__ = ["is_step", "read_calibration", "require_findings", "require_record", "require_sample"]

LARGEST_STEP = 2**53  # up to here float64 tells every step from the next


def is_step(value: Any) -> bool:
    """Whether a record's step is a number of updates."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value < LARGEST_STEP and value == int(value)


def require_record(path: Path) -> RunRecord | None:
    """run.json. Raises ValueError when a field is of another kind than RunRecord says, or what `read_run` raises."""
    record = read_run(path.parent)
    if record is None:
        return None
    _require(str, "stage and started", record.stage, record.started)
    _require(str, "a word", *_given(record.ended, record.unit, record.flops_formula, record.device, record.dtype))
    _numbers("parameters", record.parameters.values())
    _numbers("threads and flops_per_unit", _given(record.threads, record.flops_per_unit))
    if record.ceiling is not None:
        _numbers("ceiling", [record.ceiling.flops_per_second])
        if not record.ceiling.flops_per_second > 0:
            raise ValueError("a ceiling that is not above 0")
    return record


def require_findings(path: Path) -> list[Finding] | None:
    """findings.json. Raises ValueError when a field is of another kind than Finding says."""
    found = read_findings(path.parent)
    for finding in found or []:
        words = (finding.name, finding.title, finding.severity, finding.evidence, finding.cause, finding.remedy)
        _require(str, "the words of a finding", *words)
        if not is_step(finding.step):
            raise ValueError(f"a finding at step {finding.step!r}")
    return found


def require_sample(sample: Sample) -> None:
    """Raise ValueError or TypeError unless the sample is whole: as many numbers of each kind as tokens."""
    _require(str, "prompt and tokens", sample.prompt, *sample.tokens)
    _require(int, "seed", sample.seed)
    _numbers("score", _given(sample.score))
    if not is_step(sample.step):
        raise ValueError(f"step {sample.step!r}")
    for part in _given(sample.logprobs, sample.kl, sample.advantages, sample.values):
        _numbers("numbers of the tokens", part)
        if len(part) != len(sample.tokens):
            raise ValueError("as many numbers as tokens")


def read_calibration(path: Path) -> list[dict[str, Any]]:
    """The evaluations of calibration.json. Raises ValueError, KeyError or TypeError where a number is missing."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["evaluations"]
    for evaluation in found:
        _numbers("an evaluation", [evaluation[n] for n in ("expected_calibration_error", "log_loss", "pairs")])
        parts = [(evaluation, "accuracy"), *((part, "accuracy") for part in evaluation["by_k"])]
        for part, share in [*parts, *((part, "share") for part in evaluation["bins"])]:
            _numbers("a share", [part[share], part["pairs"], *_given(part["half_width"])], 0.0)
        for part in evaluation["bins"]:
            _numbers("a bin", [part[edge] for edge in ("low", "high", "confidence", "share")], 0.0, 1.0)
        if not evaluation["bins"] or not evaluation["pairs"] > 0:
            raise ValueError("an evaluation without pairs")
    return found


def _given(*values: Any) -> list[Any]:
    return [value for value in values if value is not None]


def _require(kind: type, what: str, *values: Any) -> None:
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{what} must be {kind.__name__}, got {value!r}")


def _numbers(what: str, values: Iterable[Any], low: float = -1e250, high: float = 1e250) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{what} must be a number, got {value!r}")
        if value == value and not low <= value <= high:
            raise ValueError(f"{what} must lie in {low:g} .. {high:g}, got {value!r}")
