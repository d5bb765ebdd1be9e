"""Kinds of task files: what a file of each kind may say, and the function that measures it.

A further kind is a class of options, a function and one line in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from instructgpt_fast.checkpoint import Loaded
from instructgpt_fast.evaluate.bias import BiasTask, run_bias
from instructgpt_fast.evaluate.code_task import CodeTask, run_code
from instructgpt_fast.evaluate.generation import GenerationTask, run_generation
from instructgpt_fast.evaluate.multiple_choice import MultipleChoiceTask, run_multiple_choice
from instructgpt_fast.evaluate.options import EvaluateConfig
from instructgpt_fast.evaluate.outcome import Outcome
from instructgpt_fast.evaluate.perplexity_task import PerplexityTask, run_perplexity
from instructgpt_fast.evaluate.task_file import Task, TaskOptions, is_task_file, read_task, template_task


@dataclass(frozen=True)
class Kind:
    """options: what a task file may say. run: (task, its checkpoint, options of the evaluation) -> results."""

    options: type[TaskOptions]
    run: Callable[[Task, Loaded, EvaluateConfig], Outcome]


KINDS: dict[str, Kind] = {
    "bias": Kind(BiasTask, run_bias),
    "code": Kind(CodeTask, run_code),
    "multiple_choice": Kind(MultipleChoiceTask, run_multiple_choice),
    "generation": Kind(GenerationTask, run_generation),
    "perplexity": Kind(PerplexityTask, run_perplexity),
}


def find_task(given: str, data: str | None, *, name: str | None = None) -> Task:
    """The task that `--tasks` gives: a task file, or a template on `data`. Raises ConfigError naming file and key.

    name: what results call the task of a template, in place of the template's own name.
    """
    classes = {kind: each.options for kind, each in KINDS.items()}
    return read_task(given, classes) if is_task_file(given) else template_task(given, str(data), classes, name=name)


def run_task(task: Task, loaded: Loaded, config: EvaluateConfig) -> Outcome:
    """Measure one task on one checkpoint."""
    task.options.ready(task, config)
    return KINDS[task.options.kind].run(task, loaded, config)
