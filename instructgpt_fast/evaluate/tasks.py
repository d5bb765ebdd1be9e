"""Evaluation of a checkpoint: the tasks that need no file, task files and templates, in one table.

A further task without a file is one function and one line in `TASKS`; a kind of task file is one line in kinds.py.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.config import to_dict
from instructgpt_fast.data import Limits
from instructgpt_fast.device import choose_device, torch_dtype
from instructgpt_fast.errors import CheckpointError, ConfigError
from instructgpt_fast.evaluate.kinds import find_task, run_task
from instructgpt_fast.evaluate.measure import Interval, Measure
from instructgpt_fast.evaluate.options import PLAIN_TASKS, EvaluateConfig
from instructgpt_fast.evaluate.outcome import Outcome, language_model
from instructgpt_fast.evaluate.perplexity import perplexity
from instructgpt_fast.evaluate.reading import read_comparisons, read_stream
from instructgpt_fast.evaluate.reward_accuracy import Accuracy, reward_accuracy
from instructgpt_fast.files import atomic_write
from instructgpt_fast.model import ScalarModel

# Options that Python may give as functions.
SCORERS = ("toxicity_scorer", "sentiment_scorer")


@dataclass(frozen=True)
class Row:
    """One line of the result: a number, and its 95 % interval where there is one.

    The interval is `half_width` to both sides, or from `interval[0]` to `interval[1]` where the sides differ.
    """

    task: str
    metric: str
    value: float
    half_width: float | None = None
    count: int | None = None  # of what the number averages over
    interval: Interval | None = None

    def cells(self) -> tuple[str, str, str, str, str]:
        """The row as texts: task, metric, value, interval, count."""
        interval = "" if self.half_width is None else f"+- {self.half_width:.4g}"
        if self.interval is not None:
            interval = f"{self.interval[0]:.4g} .. {self.interval[1]:.4g}"
        count = "" if self.count is None else f"{self.count:,}"
        return self.task, self.metric, f"{self.value:.5g}", interval, count


@dataclass(frozen=True)
class Evaluation:
    """Results on one checkpoint; `metrics` maps "task/metric" to the number, str() is a table.

    measures: those of task files, by item: `difference` of two evaluations' measures compares checkpoints.
    about: task -> what was measured on and with.
    """

    checkpoint: Path
    rows: tuple[Row, ...]
    measures: tuple[Measure, ...] = field(default=(), compare=False, repr=False)
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        """Every number by "task/metric"."""
        return {f"{row.task}/{row.metric}": row.value for row in self.rows}

    def __str__(self) -> str:
        """The results as a table of plain text."""
        lines = [("task", "metric", "value", "95 %", "over"), *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ("  ".join(map(str.ljust, line, widths)) for line in lines)
        return "\n".join(line.rstrip() for line in padded)


def evaluate(checkpoint: Any, **options: Any) -> Evaluation:
    """Measure a checkpoint and return the results, which print as a table.

    checkpoint: a path, a run's result, or an `EvaluateConfig`. options: those of `EvaluateConfig`, for example
    data="held_out.txt" (perplexity and bits per byte), comparisons="test.jsonl" (accuracy of a reward model) or
    tasks=["capitals.toml"] (a task file). toxicity_scorer and sentiment_scorer may be functions: a list of texts in, a
    list of numbers out.
    Raises ConfigError, DataError or CheckpointError.
    """
    scorers = {name: options[name] for name in SCORERS if callable(options.get(name))}
    options |= {name: f"{function.__module__}:{function.__qualname__}" for name, function in scorers.items()}
    if isinstance(checkpoint, EvaluateConfig):
        config = checkpoint
    else:
        config = EvaluateConfig(checkpoint=getattr(checkpoint, "checkpoint", checkpoint), **options)
    tasks = {name: None if name in PLAIN_TASKS else find_task(name, config.data) for name in config.chosen()}
    names = [name if task is None else task.name for name, task in tasks.items()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"evaluate: tasks must have different names, got {twice[0]!r} twice; set name in one of them")
    device, _ = choose_device(config.device)
    loaded = load_model(config.checkpoint, dtype=torch_dtype(config.dtype), device=device)
    rows: list[Row] = []
    outcomes: dict[str, Outcome] = {}
    for name, task in tasks.items():
        if task is None:
            rows += TASKS[name](loaded, config)
        else:
            outcomes[task.name] = run_task(replace(task, scorers=scorers), loaded, config)
            rows += [row_of(measure) for measure in outcomes[task.name].measures]
    measures = tuple(measure for outcome in outcomes.values() for measure in outcome.measures)
    result = Evaluation(loaded.path, tuple(rows), measures, {name: each.about for name, each in outcomes.items()})
    _write(result, outcomes, config)
    return result


def row_of(measure: Measure) -> Row:
    """A measure as a line of the table."""
    return Row(measure.task, measure.metric, measure.value, count=measure.over, interval=measure.interval())


def _write(result: Evaluation, outcomes: Mapping[str, Outcome], config: EvaluateConfig) -> None:
    if config.output is not None:
        content: dict[str, Any] = {
            "checkpoint": str(result.checkpoint), "options": to_dict(config), "metrics": result.metrics,
        }
        intervals = {f"{row.task}/{row.metric}": list(row.interval) for row in result.rows if row.interval is not None}
        if outcomes:
            content |= {"intervals": intervals, "tasks": result.about}
        atomic_write(config.output, json.dumps(content, indent=1, ensure_ascii=False) + "\n", error=ConfigError)
    if config.records is not None:
        lines = [
            json.dumps({"task": name, **record}, ensure_ascii=False)
            for name, outcome in outcomes.items() for record in outcome.records
        ]
        atomic_write(config.records, "".join(line + "\n" for line in lines), error=ConfigError)


def measure_perplexity(loaded: Loaded, config: EvaluateConfig) -> Sequence[Row]:
    """Loss, perplexity and bits per byte on text."""
    model = language_model("perplexity", loaded)
    stream = read_stream(str(config.data), loaded.tokenizer, config.on_bad_line)
    found = perplexity(
        model, loaded.tokenizer, stream, context=config.context, stride=config.stride, batch_size=config.batch_size,
    )
    return [
        Row("perplexity", "loss", found.loss, count=found.tokens),
        Row("perplexity", "perplexity", found.perplexity, count=found.tokens),
        Row("perplexity", "bits_per_byte", found.bits_per_byte, count=found.bytes),
    ]


def measure_reward_accuracy(loaded: Loaded, config: EvaluateConfig) -> Sequence[Row]:
    """Accuracy on comparisons, over all pairs and by the number of answers."""
    if not isinstance(loaded.model, ScalarModel):
        raise CheckpointError(
            f"reward_accuracy: {loaded.path} must hold a reward model, got a language model; name another."
        )
    context = loaded.model.config.n_positions
    data = read_comparisons(
        str(config.comparisons), loaded.tokenizer, loaded.prompt_format, Limits(context, context, context),
        config.on_bad_line, warnings.warn,
    )
    found = reward_accuracy(loaded.model, data, batch_size=config.batch_size)

    def row(metric: str, part: Accuracy) -> Row:
        return Row("reward_accuracy", metric, part.accuracy, part.half_width, part.pairs)

    return [
        row("accuracy", found.overall), *(row(f"accuracy_k{k}", part) for k, part in found.by_k.items()),
        Row("reward_accuracy", "margin", found.mean_margin, count=found.overall.pairs),
        Row("reward_accuracy", "loss", found.loss, count=found.overall.prompts),
        Row("reward_accuracy", "log_loss", found.calibration.log_loss, count=found.overall.pairs),
        Row("reward_accuracy", "calibration_error", found.calibration.error, count=found.overall.pairs),
    ]


TASKS: dict[str, Callable[[Loaded, EvaluateConfig], Sequence[Row]]] = {
    "perplexity": measure_perplexity,
    "reward_accuracy": measure_reward_accuracy,
}
