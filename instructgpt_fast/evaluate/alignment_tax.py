"""The alignment tax: what a model lost on public tasks by being aligned, checkpoint by checkpoint, with intervals.

Ouyang et al. 2022 (arXiv:2203.02155, section 4.2 and appendix E, table 14) print GPT, SFT, PPO and PPO-ptx side by
side. Here every later checkpoint also gets its difference to the first, paired item by item, so that a loss of one
point can be told from chance.

Not covered: many differences at once: of twenty, one leaves 0 out of its interval by chance alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.config import to_dict
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate.kinds import find_task
from instructgpt_fast.evaluate.measure import Difference, Interval, Measure
from instructgpt_fast.evaluate.options import EvaluateConfig
from instructgpt_fast.evaluate.outcome import language_model
from instructgpt_fast.evaluate.result import Evaluation, Row, aligned, told_apart
from instructgpt_fast.evaluate.task_file import Task
from instructgpt_fast.evaluate.tasks import (
    check_before,
    chosen_tasks,
    measure,
    named_scorers,
    number,
    with_scorers,
    write_json,
    write_records,
)

# The paper's tasks [P]: file in the folder that `data` names, without .jsonl -> template of the package.
PAPER_TASKS: Mapping[str, str] = {
    "hellaswag": "hellaswag", "squad_v2": "question_answering", "drop": "drop", "french_to_english": "translation",
    "cnn_dm": "summarisation", "truthfulqa": "truthfulqa",
}
# Of the metrics that a table has without items, whether higher is better.
_DIRECTION = {
    "loss": False, "perplexity": False, "bits_per_byte": False, "accuracy": True, "margin": True, "log_loss": False,
    "calibration_error": False,
}
Verdict = Literal["better", "worse", ""]


@dataclass(frozen=True)
class TaxRow:
    """One metric over the checkpoints.

    differences: to the first checkpoint; None of the first itself, and where there are no items to pair or the two do
    not compare (a loss per token under two tokenizers).
    """

    task: str
    metric: str
    rows: tuple[Row, ...]
    differences: tuple[Difference | None, ...]
    higher_is_better: bool | None  # None: the metric says neither

    def verdict(self, place: int) -> Verdict:
        """Whether checkpoint `place` is clearly better or worse than the first: the interval leaves 0 out."""
        difference = self.differences[place]
        if difference is None or not difference.clear or self.higher_is_better is None:
            return ""
        return "better" if (difference.value > 0.0) == self.higher_is_better else "worse"

    def cells(self) -> list[str]:
        """The row as texts: task, metric, the first value, then value and difference of each other checkpoint."""
        found = [self.task, self.metric]
        for place, row in enumerate(self.rows):
            found.append(f"{row.value:.4g}")
            if place:
                found.append(self._difference(place))
        return found

    def difference_content(self, place: int) -> dict[str, Any]:
        """The difference of checkpoint `place` to the first as plain values for a JSON file."""
        value, interval, verdict = self._told(place), self._interval(place), self.verdict(place)
        ends = None if interval is None else [number(end) for end in interval]
        return {"value": number(value), "interval": ends, "verdict": verdict or None}

    def _told(self, place: int) -> float:
        difference = self.differences[place]
        return self.rows[place].value - self.rows[0].value if difference is None else difference.value

    def _interval(self, place: int) -> Interval | None:
        difference = self.differences[place]
        return None if difference is None else difference.interval

    def _difference(self, place: int) -> str:
        text, interval = f"{self._told(place):+.3g}", self._interval(place)
        if interval is not None:
            text += f" ({interval[0]:+.3g} .. {interval[1]:+.3g})"
        verdict = self.verdict(place)
        return f"{text} {verdict}" if verdict else text


@dataclass(frozen=True)
class AlignmentTax:
    """The same tasks on several checkpoints, the first being the one before alignment; str() is the table."""

    names: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    rows: tuple[TaxRow, ...]

    def __str__(self) -> str:
        """The table in plain text."""
        header = ["task", "metric", self.names[0]]
        for name in self.names[1:]:
            header += [name, f"- {self.names[0]} (95 %)"]
        return aligned([header, *(row.cells() for row in self.rows)])

    def content(self) -> dict[str, Any]:
        """The results as plain values for a JSON file."""
        return {
            "checkpoints": {
                name: str(found.checkpoint) for name, found in zip(self.names, self.evaluations, strict=True)
            },
            "tasks": self.evaluations[0].about,
            "rows": [
                {
                    "task": row.task, "metric": row.metric, "higher_is_better": row.higher_is_better,
                    "checkpoints": {
                        name: {"value": number(row.rows[place].value)}
                        | ({"difference": row.difference_content(place)} if place else {})
                        for place, name in enumerate(self.names)
                    },
                }
                for row in self.rows
            ],
        }


def alignment_tax(checkpoints: Sequence[Any] | EvaluateConfig, **options: Any) -> AlignmentTax:
    """Run the same tasks on several checkpoints and hold each against the first, item by item.

    checkpoints: paths or runs' results, two or more, before alignment first (GPT, SFT, PPO, PPO-ptx in the paper); or
        an `EvaluateConfig` with `alignment_tax`.
    options: those of `EvaluateConfig`. Without `tasks`, `data` is a folder in which the paper's tasks are looked for:
        hellaswag.jsonl, squad_v2.jsonl, drop.jsonl, french_to_english.jsonl, cnn_dm.jsonl, truthfulqa.jsonl, with the
        fields that their templates name.
    Raises ConfigError, DataError or CheckpointError.
    """
    scorers, named = named_scorers(options)
    if isinstance(checkpoints, str):
        raise ConfigError(f"alignment_tax: checkpoints must be a list, got {checkpoints!r}; name two or more.")
    if isinstance(checkpoints, EvaluateConfig):
        config = with_scorers(checkpoints, scorers, named)
    else:
        paths = tuple(str(getattr(each, "checkpoint", each)) for each in checkpoints)
        config = EvaluateConfig(alignment_tax=paths, **named)
    names = told_apart(config.alignment_tax)
    tasks = chosen_tasks(config) if config.tasks else paper_tasks(config.data)
    check_before(tasks, config)
    _check_checkpoints(tasks, config.alignment_tax)
    # One checkpoint at a time: only one model is ever in memory.
    measured = [measure(checkpoint, tasks, config, scorers) for checkpoint in config.alignment_tax]
    evaluations = tuple(evaluation for evaluation, _ in measured)
    result = AlignmentTax(names, evaluations, tuple(compared(evaluations)))
    if config.output is not None:
        write_json(config.output, {"options": to_dict(config), **result.content()})
    if config.records is not None:
        write_records(config.records, {name: found for name, (_, found) in zip(names, measured, strict=True)})
    return result


def _check_checkpoints(tasks: Mapping[str, Task | None], checkpoints: Sequence[str]) -> None:
    """Load each once before any is measured, which may take hours. Raises CheckpointError."""
    fingerprints = set()
    for checkpoint in checkpoints:
        loaded = load_model(checkpoint)
        if set(tasks) != {"reward_accuracy"}:
            language_model("alignment_tax", loaded)
        fingerprints.add(loaded.tokenizer.fingerprint)
    if len(fingerprints) > 1:
        warnings.warn(
            "alignment_tax: the checkpoints have different tokenizers: losses and perplexities per token, and lengths "
            "in tokens, do not compare; bits per byte do", stacklevel=3,
        )


def paper_tasks(folder: str | None) -> dict[str, Task | None]:
    """The paper's tasks whose data is in `folder`, by name and in the paper's order. Raises ConfigError for none."""
    wanted = ", ".join(f"{name}.jsonl" for name in PAPER_TASKS)
    if folder is None or not Path(folder).is_dir():
        raise ConfigError(
            f"alignment_tax: give tasks, or as data a folder with some of {wanted}; got "
            f"{'neither' if folder is None else folder + ', which is no folder'}."
        )
    files = {name: Path(folder) / f"{name}.jsonl" for name in PAPER_TASKS}
    found: dict[str, Task | None] = {
        name: find_task(PAPER_TASKS[name], str(path), name=name) for name, path in files.items() if path.exists()
    }
    if not found:
        raise ConfigError(f"alignment_tax: the folder {folder} must hold some of {wanted}, got none; put them there.")
    return found


def compared(evaluations: Sequence[Evaluation]) -> list[TaxRow]:
    """Rows of equal task and metric put side by side; those with items paired item by item."""
    by_key = [{(m.task, m.metric): m for m in found.measures} for found in evaluations]
    rows: list[TaxRow] = []
    for line, row in enumerate(evaluations[0].rows):
        several = tuple(found.rows[line] for found in evaluations)
        measures: list[Measure | None] = [keyed.get((row.task, row.metric)) for keyed in by_key]
        first = measures[0]
        differences = tuple(
            each.difference(first) if place and each and first and each.data == first.data else None
            for place, each in enumerate(measures)
        )
        rows.append(TaxRow(
            row.task, row.metric, several, differences,
            _DIRECTION.get(row.metric) if first is None else first.higher_is_better,
        ))
    return rows
