"""Evaluation of a checkpoint: tasks looked up by name, each giving rows of a table.

A further task is one function and one line in `TASKS`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.config import Options, nearest, options_class, to_dict
from instructgpt_fast.data import Limits
from instructgpt_fast.device import choose_device, torch_dtype
from instructgpt_fast.errors import CheckpointError, ConfigError
from instructgpt_fast.evaluate.perplexity import perplexity
from instructgpt_fast.evaluate.reading import read_comparisons, read_stream
from instructgpt_fast.evaluate.reward_accuracy import Accuracy, reward_accuracy
from instructgpt_fast.files import atomic_write
from instructgpt_fast.model import GPT, ScalarModel


@options_class()
class EvaluateConfig(Options):
    """What to measure, on which checkpoint and data."""

    stage: ClassVar[str] = "evaluate"

    checkpoint: str
    """Checkpoint or run directory of the model."""
    tasks: tuple[str, ...] = ()
    """perplexity, reward_accuracy; none takes every task whose data is given."""
    data: str | None = None
    """Text for perplexity: a .txt or .jsonl file, a folder of them, or token shards."""
    comparisons: str | None = None
    """jsonl of comparisons for reward_accuracy."""
    context: int | None = None
    """Tokens of a perplexity window; None is the model's context."""
    stride: int | None = None
    """Tokens between perplexity windows; None is half the window."""
    batch_size: int = 8
    """Sequences in one forward pass."""
    on_bad_line: Literal["error", "skip"] = "error"
    """A malformed line of a jsonl file stops the evaluation with its place, or is left out and counted."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Type of weights and activations."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" takes the GPU when every op runs on it."""
    output: str | None = None
    """File for the results as JSON."""

    def check(self) -> None:
        """Refuse unknown tasks, tasks without data, and nothing to do."""
        for task in self.tasks:
            if task not in TASKS:
                raise ConfigError(
                    f"evaluate: no task is called {task!r}{nearest(task, TASKS)}; there are {', '.join(TASKS)}."
                )
            needed = TASKS[task].needs
            self.require(f"the task {task} needs {needed}", getattr(self, needed) is not None, **{needed: None})
        self.require(
            "give data or comparisons to measure on", bool(self.chosen()), data=self.data, comparisons=self.comparisons
        )
        self.require("batch_size must be at least 1", self.batch_size >= 1, batch_size=self.batch_size)

    def chosen(self) -> list[str]:
        """The tasks to run: those named, or all whose data is given."""
        return list(self.tasks) or [name for name, task in TASKS.items() if getattr(self, task.needs) is not None]


@dataclass(frozen=True)
class Row:
    """One line of the result: a number, and half the width of its 95 % interval where there is one."""

    task: str
    metric: str
    value: float
    half_width: float | None = None
    count: int | None = None  # of what the number averages over


@dataclass(frozen=True)
class Evaluation:
    """Results on one checkpoint; `metrics` maps "task/metric" to the number, str() is a table."""

    checkpoint: Path
    rows: tuple[Row, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """Every number by "task/metric"."""
        return {f"{row.task}/{row.metric}": row.value for row in self.rows}

    def __str__(self) -> str:
        """The results as a table of plain text."""
        lines = [("task", "metric", "value", "95 %", "over")]
        for row in self.rows:
            interval = "" if row.half_width is None else f"+- {row.half_width:.4g}"
            count = "" if row.count is None else f"{row.count:,}"
            lines.append((row.task, row.metric, f"{row.value:.5g}", interval, count))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ("  ".join(map(str.ljust, line, widths)) for line in lines)
        return "\n".join(line.rstrip() for line in padded)


@dataclass(frozen=True)
class Task:
    """A way to measure: the option that names its data, and the function."""

    needs: str
    run: Callable[[Loaded, EvaluateConfig], list[Row]]


def evaluate(checkpoint: Any, **options: Any) -> Evaluation:
    """Measure a checkpoint and return the results, which print as a table.

    checkpoint: a path, a run's result, or an `EvaluateConfig`. options: those of `EvaluateConfig`, for example
    data="held_out.txt" (perplexity and bits per byte) or comparisons="test.jsonl" (accuracy of a reward model).
    Raises ConfigError, DataError or CheckpointError.
    """
    if isinstance(checkpoint, EvaluateConfig):
        config = checkpoint
    else:
        config = EvaluateConfig(checkpoint=getattr(checkpoint, "checkpoint", checkpoint), **options)
    device, _ = choose_device(config.device)
    loaded = load_model(config.checkpoint, dtype=torch_dtype(config.dtype), device=device)
    rows = tuple(row for name in config.chosen() for row in TASKS[name].run(loaded, config))
    result = Evaluation(loaded.path, rows)
    if config.output is not None:
        content = {"checkpoint": str(result.checkpoint), "options": to_dict(config), "metrics": result.metrics}
        atomic_write(config.output, json.dumps(content, indent=1) + "\n", error=ConfigError)
    return result


def measure_perplexity(loaded: Loaded, config: EvaluateConfig) -> list[Row]:
    """Loss, perplexity and bits per byte on text."""
    if not isinstance(loaded.model, GPT):
        raise CheckpointError(
            f"perplexity: {loaded.path} must hold a language model, got a reward model; name another."
        )
    stream = read_stream(str(config.data), loaded.tokenizer, config.on_bad_line)
    found = perplexity(
        loaded.model, loaded.tokenizer, stream,
        context=config.context, stride=config.stride, batch_size=config.batch_size,
    )
    return [
        Row("perplexity", "loss", found.loss, count=found.tokens),
        Row("perplexity", "perplexity", found.perplexity, count=found.tokens),
        Row("perplexity", "bits_per_byte", found.bits_per_byte, count=found.bytes),
    ]


def measure_reward_accuracy(loaded: Loaded, config: EvaluateConfig) -> list[Row]:
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


TASKS: dict[str, Task] = {
    "perplexity": Task("data", measure_perplexity),
    "reward_accuracy": Task("comparisons", measure_reward_accuracy),
}
