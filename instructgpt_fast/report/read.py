"""Reads what a run has left in its directory; what is missing or damaged is noted, and never stops the report.

A run that crashed has no result.json and may end in half a line; one that was resumed may hold records of a first
attempt, which those of the second replace.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from instructgpt_fast.checkpoint import RESULT
from instructgpt_fast.config import field_types
from instructgpt_fast.diagnosis import FINDINGS_FILE, Finding
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.report.check import (
    is_step,
    read_calibration,
    require_findings,
    require_record,
    require_sample,
)
from instructgpt_fast.train import STAGES, config_class
from instructgpt_fast.train.calibration import CALIBRATION_FILE
from instructgpt_fast.train.loop import RESOLVED_FILE
from instructgpt_fast.train.metrics import METRICS_FILE
from instructgpt_fast.train.records import RUN_FILE, SAMPLES_FILE, RunRecord, Sample

__all__ = ["RunFiles", "find_runs", "read_run_files"]

T = TypeVar("T")


@dataclass
class RunFiles:
    """What a run directory holds.

    stage: of `instructgpt_fast.train`, None when nothing tells. options: resolved.toml. records: metrics.jsonl in the
    order of the steps. findings: findings.json, None for a run that has not finished. calibration: the evaluations of
    calibration.json. result: result.json, None for a run that has not finished. stopped: the non-finite number that
    ended the run, None for one that ended otherwise or went on. notes: what could not be read.
    """

    folder: Path
    stage: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    record: RunRecord | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    findings: list[Finding] | None = None
    calibration: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    stopped: Finding | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the directory."""
        return self.folder.resolve().name

    @property
    def last_step(self) -> int:
        """The last step that was recorded, 0 before the first."""
        return int(self.records[-1]["step"]) if self.records else 0


def find_runs(folder: Path) -> list[Path]:
    """The run directories that `folder` is or holds, by name. Raises ConfigError when there is none."""
    if not folder.is_dir():
        raise ConfigError(f"report: run must be a directory, got {folder}, which is none; check the path.")
    if _is_run(folder):
        return [folder]
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_run(path)]
    if not found:
        raise ConfigError(
            f"report: {folder} must be a run directory or hold some (each with {RESOLVED_FILE} or {METRICS_FILE}), "
            "got neither; name the output_dir of a training run."
        )
    return found


def read_run_files(folder: Path) -> RunFiles:
    """Read a run directory as far as it can be read."""
    run = RunFiles(folder)
    run.options = _attempt(run, RESOLVED_FILE, lambda path: tomllib.loads(path.read_text(encoding="utf-8"))) or {}
    run.record = _attempt(run, RUN_FILE, require_record)
    run.result = _attempt(run, RESULT, lambda path: dict(json.loads(path.read_text(encoding="utf-8"))))
    run.findings = _attempt(run, FINDINGS_FILE, require_findings)
    run.calibration = _attempt(run, CALIBRATION_FILE, read_calibration) or []
    run.records = _in_order(run, _rows(run, METRICS_FILE))
    run.samples = _samples(_rows(run, SAMPLES_FILE), run)
    run.stage = run.record.stage if run.record is not None else _guessed_stage(run)
    if run.stage not in STAGES:
        run.stage = None
    kept = max(folder.glob("nonfinite-*"), default=None)
    if kept is not None:
        stopped = _attempt(run, f"{kept.name}/report.json", lambda path: _stopped(path, kept.name))
        run.stopped = stopped if stopped is not None and run.result is None and stopped.step >= run.last_step else None
    return run


def _stopped(path: Path, kept: str) -> Finding:
    """What training wrote when a loss or a gradient was not finite, as a finding."""
    told = json.loads(path.read_text(encoding="utf-8"))
    step, origin = int(told["step"]), told["first_nonfinite"]
    values = ", ".join(f"{name} = {value}" for name, value in dict(told["values"]).items())
    return Finding(
        name="not_finite", title="A number is not finite, and the run stopped", severity="error", step=step,
        evidence=f"At step {step:,}: {values}. First tensor that is not finite: {origin}.",
        cause=f"Steps too large, a number beyond the dtype, or the batch, which is kept in {kept}.",
        remedy="Lower learning_rate, look at the batch, or train in dtype=fp32 or bf16; go on from a checkpoint.",
    )


def _is_run(folder: Path) -> bool:
    return (folder / RESOLVED_FILE).is_file() or (folder / METRICS_FILE).is_file()


def _attempt(run: RunFiles, name: str, read: Callable[[Path], T | None]) -> T | None:
    path = run.folder / name
    if not path.is_file():
        return None
    try:
        return read(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        run.notes.append(f"{name} could not be read ({cause}) and is left out.")
        return None


def _rows(run: RunFiles, name: str) -> list[dict[str, Any]]:
    """The objects of a jsonl file; lines that are none are counted, but for a last one that was never finished."""
    path = run.folder / name
    if not path.is_file():
        return []
    *lines, rest = path.read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = []
    bad: list[int] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else {}
        except ValueError:
            bad.append(number)
            continue
        if isinstance(row, dict):
            rows += [row] if row else []
        else:
            bad.append(number)
    if bad:
        lines_are = "a line that is" if len(bad) == 1 else f"{len(bad)} lines that are"
        run.notes.append(f"{name} holds {lines_are} no JSON object, the first at line {bad[0]}; left out.")
    if rest.strip():
        run.notes.append(f"{name} ends in half a line: the run was stopped while it wrote. The line is left out.")
    return rows


def _in_order(run: RunFiles, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records by rising step: where the steps go back, the run was begun again, and the later records stand."""
    kept: list[dict[str, Any]] = []
    replaced = without_step = 0
    for row in rows:
        step = row.get("step")
        if not is_step(step):
            without_step += 1
            continue
        if kept and kept[-1]["step"] > step:
            while kept and kept[-1]["step"] >= step:
                kept.pop()
                replaced += 1
        kept.append(row)
    if replaced:
        run.notes.append(f"The run was begun again: {replaced:,} records of the earlier attempt are left out.")
    if without_step:
        run.notes.append(f"{without_step:,} records of {METRICS_FILE} have no step and are left out.")
    return kept


def _samples(rows: list[dict[str, Any]], run: RunFiles) -> list[Sample]:
    known = {entry.name for entry in dataclasses.fields(Sample)}
    found: list[Sample] = []
    for row in rows:
        try:
            sample = Sample(**{name: value for name, value in row.items() if name in known})
            require_sample(sample)
        except (TypeError, ValueError):
            continue
        found.append(sample)
    if len(found) < len(rows):
        run.notes.append(f"{len(rows) - len(found):,} samples of {SAMPLES_FILE} are incomplete and are left out.")
    return found


def _guessed_stage(run: RunFiles) -> str | None:
    """The stage whose options these are, for a run of a version that did not write its stage down."""
    given = set(run.options)
    for stage in STAGES:
        known = set(field_types(config_class(stage)))
        if given and given <= known and len(given) > len(known) / 2:
            return stage
    return None
