"""What a run keeps about itself beside its metrics: run.json (what ran, on what) and samples.jsonl (answers it gave).

Not covered: metrics.jsonl (metrics.py) and findings.json (instructgpt_fast.diagnosis).
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.files import atomic_write, reporting_write_errors

__all__ = ["RUN_FILE", "SAMPLES_FILE", "Ceiling", "RunRecord", "Sample", "SamplesLog", "read_run", "read_samples"]

RUN_FILE = "run.json"
SAMPLES_FILE = "samples.jsonl"


@dataclass(frozen=True)
class Ceiling:
    """The most that this device was seen to do in the same process: a large matrix product, and nothing else.

    flops_per_second: FLOP/s, a product of [n, n] matrices counted as 2 n^3. how: device, dtype, threads and size in
    words.
    """

    flops_per_second: float
    how: str


@dataclass(frozen=True)
class RunRecord:
    """run.json: what a run was and what its work costs; everything but stage and started may be unknown (None).

    stage: "pretrain", "sft", "reward" or "ppo". started, ended: ISO 8601 in UTC, of the last process that worked on
    the run; `ended` is None while it runs or when it was killed.
    unit: what metrics.jsonl counts: its rate is named "<unit>_per_second".
    parameters: trained model -> numbers in it, for example {"policy": 124439808, "value": ...}.
    flops_per_unit: FLOPs that the stage's method needs for one unit of work, averaged over the work of the last
    process; multiplied by the rate it is FLOP/s, to be held against the ceiling. flops_formula: how it was counted.
    device, dtype, threads: "cpu" or "cuda", the run's dtype, torch's threads.
    ceiling: None when it was not measured (a run of less than 20 seconds, or one that did not finish).
    """

    stage: str
    started: str
    ended: str | None = None
    unit: str = "tokens"
    parameters: Mapping[str, int] = dataclasses.field(default_factory=dict)
    flops_per_unit: float | None = None
    flops_formula: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    ceiling: Ceiling | None = None

    def write(self, run_dir: Path) -> None:
        """Write run.json whole. Raises CheckpointError when the disk refuses."""
        atomic_write(run_dir / RUN_FILE, json.dumps(asdict(self), indent=1) + "\n", error=CheckpointError)


@dataclass(frozen=True)
class Sample:
    """One answer to a fixed prompt, drawn from the same seed every time, so that samples differ by the weights alone.

    step: updates done when it was drawn; 0 is before the first. prompt: text. seed: of the sampler.
    tokens: the answer as T pieces of text, which joined are the answer (a piece may be empty where a character takes
    several tokens); EOS is a piece "" at the end of a finished answer. token_ids: T ids.
    logprobs: T log-probabilities in nats at the sampling temperature.
    kl: T numbers log pi - log pi_ref, nats a token; values: T values of the state before the token; advantages: T, as
    the update would use them before whitening. These three are None in stages that have no reference or value model.
    score: the reward model's (or reward function's) number before penalties; None where there is none.
    finished: True when the answer ended with EOS.
    """

    step: int
    prompt: str
    seed: int
    tokens: list[str]
    token_ids: list[int]
    logprobs: list[float]
    finished: bool
    kl: list[float] | None = None
    advantages: list[float] | None = None
    values: list[float] | None = None
    score: float | None = None


def read_run(run_dir: str | Path) -> RunRecord | None:
    """The record of a run; None for a run without one, made by an earlier version."""
    stored = _read_json(Path(run_dir) / RUN_FILE)
    if stored is None:
        return None
    ceiling = stored.get("ceiling")
    known = {field.name for field in dataclasses.fields(RunRecord)}
    fields = {name: value for name, value in stored.items() if name in known}
    return RunRecord(**{**fields, "ceiling": None if ceiling is None else Ceiling(**ceiling)})


def read_samples(run_dir: str | Path) -> list[Sample]:
    """The samples of a run in the order they were drawn, none where there are none; an unfinished line is left out."""
    path = Path(run_dir) / SAMPLES_FILE
    if not path.exists():
        return []
    known = {field.name for field in dataclasses.fields(Sample)}
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    rows = [json.loads(line) for line in lines if line]
    return [Sample(**{name: value for name, value in row.items() if name in known}) for row in rows]


class SamplesLog:
    """Appends to the samples of one run."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / SAMPLES_FILE
        self.steps: set[int] = set()  # of the samples that are kept

    def write(self, samples: Sequence[Sample]) -> None:
        """Append samples, all or none. Raises CheckpointError when the disk refuses."""
        text = "".join(json.dumps(asdict(sample)) + "\n" for sample in samples)
        with reporting_write_errors(self._path, CheckpointError):
            size = self._path.stat().st_size if self._path.exists() else 0
            try:
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write(text)
            except OSError:
                # The next samples would go on in the middle of a line.
                if self._path.exists():
                    os.truncate(self._path, size)
                raise
        self.steps |= {sample.step for sample in samples}

    def keep_until(self, step: int) -> None:
        """Drop the samples after `step` (of 0: all), which a resumed run draws again, and the last ones if some miss.

        Some miss when a process died while it wrote: then there are fewer than at the step before.
        """
        if self._path.exists():
            kept = [sample for sample in read_samples(self._path.parent) if sample.step <= step and step > 0]
            counts = collections.Counter(sample.step for sample in kept)
            steps = sorted(counts)
            if len(steps) > 1 and counts[steps[-1]] < counts[steps[-2]]:
                kept = [sample for sample in kept if sample.step != steps[-1]]
            text = "".join(json.dumps(asdict(sample)) + "\n" for sample in kept)
            atomic_write(self._path, text, error=CheckpointError)
            self.steps = {sample.step for sample in kept}


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
