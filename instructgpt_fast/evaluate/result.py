"""What an evaluation found, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate.measure import Interval, Measure
from instructgpt_fast.files import run_name


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
        return aligned([("task", "metric", "value", "95 %", "over"), *(row.cells() for row in self.rows)])


def row_of(measure: Measure) -> Row:
    """A measure as a line of the table."""
    return Row(measure.task, measure.metric, measure.value, count=measure.over, interval=measure.interval())


def told_apart(checkpoints: Sequence[str]) -> tuple[str, ...]:
    """What checkpoints are called in a table: their runs' names where all differ, else their paths.

    Raises ConfigError for one that is named twice.
    """
    names = tuple(map(run_name, checkpoints))
    if len(set(names)) == len(names):
        return names
    paths = tuple(str(Path(checkpoint)) for checkpoint in checkpoints)
    twice = [path for place, path in enumerate(paths) if path in paths[:place]]
    if twice:
        raise ConfigError(f"evaluate: checkpoints must differ, got {twice[0]} twice; name each once.")
    return paths


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns of equal width, without white space at the ends of lines."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)

