"""Evaluation of a checkpoint: the tasks that need no file, task files and templates, in one table.

A further task without a file is one function and one line in `TASKS`; a kind of task file is one line in kinds.py.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.config import from_options, to_dict
from instructgpt_fast.data import Limits
from instructgpt_fast.device import choose_device, torch_dtype
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.evaluate.kinds import find_task, run_task
from instructgpt_fast.evaluate.options import PLAIN_TASKS, EvaluateConfig
from instructgpt_fast.evaluate.outcome import Outcome, language_model
from instructgpt_fast.evaluate.perplexity import perplexity
from instructgpt_fast.evaluate.reading import read_comparisons, read_stream
from instructgpt_fast.evaluate.result import Evaluation, Row, row_of
from instructgpt_fast.evaluate.reward_accuracy import Accuracy, reward_accuracy
from instructgpt_fast.evaluate.task_file import Task
from instructgpt_fast.files import atomic_write, require_writable
from instructgpt_fast.model import ScalarModel

# Options that Python may give as functions.
SCORERS = ("toxicity_scorer", "sentiment_scorer")


def evaluate(checkpoint: Any, **options: Any) -> Evaluation:
    """Measure a checkpoint and return the results, which print as a table.

    checkpoint: a path, a run's result, or an `EvaluateConfig`. options: those of `EvaluateConfig`, for example
    data="held_out.txt" (perplexity and bits per byte), comparisons="test.jsonl" (accuracy of a reward model) or
    tasks=["capitals.toml"] (a task file). toxicity_scorer and sentiment_scorer may be functions: a list of texts in, a
    list of numbers out.
    Raises ConfigError, DataError or CheckpointError.
    """
    scorers, named = named_scorers(options)
    if not isinstance(checkpoint, EvaluateConfig):
        config = EvaluateConfig(checkpoint=str(getattr(checkpoint, "checkpoint", checkpoint)), **named)
    else:
        config = with_scorers(checkpoint, scorers, named)
    if config.checkpoint is None:
        raise ConfigError(
            "evaluate: measures one checkpoint, got several to hold against each other; call evaluate.alignment_tax or "
            "evaluate.win_rate."
        )
    tasks = chosen_tasks(config)
    check_before(tasks, config)
    result, outcomes = measure(config.checkpoint, tasks, config, scorers)
    if config.output is not None:
        content = {
            "checkpoint": str(result.checkpoint), "options": to_dict(config), "metrics": numbers(result.metrics),
        }
        if result.about:
            content |= {"intervals": _intervals(result), "tasks": result.about}
        write_json(config.output, content)
    if config.records is not None:
        write_records(config.records, {str(result.checkpoint): outcomes})
    return result


def named_scorers(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that are functions, and all options with those functions named."""
    scorers = {name: options[name] for name in SCORERS if callable(options.get(name))}
    return scorers, {**options, **{name: name_of(scorer) for name, scorer in scorers.items()}}


def name_of(scorer: Any) -> str:
    """What the output calls a function or another object that can be called."""
    named = scorer if hasattr(scorer, "__qualname__") else type(scorer)
    return f"{named.__module__}:{named.__qualname__}"


def with_scorers(config: EvaluateConfig, scorers: Mapping[str, Any], named: Mapping[str, Any]) -> EvaluateConfig:
    """A config with its scorers named. Raises ConfigError for other options beside it."""
    others = [name for name in named if name not in scorers]
    if others:
        raise ConfigError(
            f"evaluate: options stand in the EvaluateConfig, got {', '.join(others)} beside one; put them into it."
        )
    return from_options(EvaluateConfig, {**vars(config), **named})


def chosen_tasks(config: EvaluateConfig) -> dict[str, Task | None]:
    """The tasks of an evaluation by name, None for those without a file. Raises ConfigError that names file and key."""
    tasks = [(name, None if name in PLAIN_TASKS else find_task(name, config.data)) for name in config.chosen()]
    names = [name if task is None else task.name for name, task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"evaluate: tasks must have different names, got {twice[0]!r} twice; set name in one of the files."
        )
    return dict(zip(names, (task for _, task in tasks), strict=True))


def check_before(tasks: Mapping[str, Task | None], config: EvaluateConfig) -> None:
    """Find what would fail behind hours of work: what tasks need and have not got, results that cannot be written.

    Raises DataError or ConfigError that names the file.
    """
    for task in filter(None, tasks.values()):
        task.options.ready(task, config)
        for option in task.options.paths:
            path = getattr(task.options, option)
            if path is not None and not Path(path).is_file():
                raise DataError(f"task: {option} must be a jsonl file, got none there; check the path", path)
    for path in (config.output, config.records):
        if path is not None:
            require_writable(path, error=ConfigError)


def measure(
    checkpoint: str, tasks: Mapping[str, Task | None], config: EvaluateConfig, scorers: Mapping[str, Any]
) -> tuple[Evaluation, dict[str, Outcome]]:
    """Load a checkpoint and run `chosen_tasks` on it. Raises ConfigError, DataError or CheckpointError."""
    device, _ = choose_device(config.device)
    loaded = load_model(checkpoint, dtype=torch_dtype(config.dtype), device=device)
    rows: list[Row] = []
    outcomes: dict[str, Outcome] = {}
    for name, task in tasks.items():
        if task is None:
            rows += TASKS[name](loaded, config)
        else:
            outcomes[name] = run_task(replace(task, scorers=scorers), loaded, config)
            rows += [row_of(each) for each in outcomes[name].measures]
    measures = tuple(each for outcome in outcomes.values() for each in outcome.measures)
    about = {name: outcome.about for name, outcome in outcomes.items()}
    return Evaluation(loaded.path, tuple(rows), measures, about), outcomes


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """Write --output whole. Raises ConfigError when the disk refuses."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    atomic_write(path, text + "\n", error=ConfigError)


def write_records(path: str, outcomes: Mapping[str, Mapping[str, Outcome]]) -> None:
    """Write --records: one line of JSON an item. outcomes: checkpoint -> task -> its outcome. Raises ConfigError."""
    write_lines(path, [
        {"task": task, "checkpoint": checkpoint, **numbers(record)}
        for checkpoint, by_task in outcomes.items() for task, outcome in by_task.items() for record in outcome.records
    ])


def write_lines(path: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Write objects as jsonl. Raises ConfigError when the disk refuses."""
    lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records]
    atomic_write(path, "".join(lines), error=ConfigError)


def _intervals(result: Evaluation) -> dict[str, list[float | None]]:
    found = {f"{row.task}/{row.metric}": row.interval for row in result.rows if row.interval is not None}
    return {name: [number(end) for end in interval] for name, interval in found.items()}


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of which those that JSON cannot hold (nan, infinite) are null."""
    return {name: number(value) for name, value in values.items()}


def number(value: Any) -> Any:
    """A value, or None in place of a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
