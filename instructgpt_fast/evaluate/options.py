"""Options of an evaluation."""

from __future__ import annotations

from typing import ClassVar, Literal

from instructgpt_fast.config import Options, nearest, options_class
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate.task_file import is_task_file, template_names

# Tasks that need no file: the option that names their data.
PLAIN_TASKS = {"perplexity": "data", "reward_accuracy": "comparisons"}


@options_class()
class EvaluateConfig(Options):
    """What to measure, on which checkpoint and data."""

    stage: ClassVar[str] = "evaluate"

    checkpoint: str
    """Checkpoint or run directory of the model."""
    against: str | None = None
    """Another checkpoint, measured on the same tasks: the table tells how far the first lies above it, item by item."""
    tasks: tuple[str, ...] = ()
    """perplexity, reward_accuracy, task files (.toml), or templates (translation, ...) whose data is --data; none takes
    perplexity and reward_accuracy, each when its data is given."""
    data: str | None = None
    """Text for perplexity: a .txt or .jsonl file, a folder of them, or token shards; for a template: its jsonl."""
    comparisons: str | None = None
    """jsonl of comparisons for reward_accuracy."""
    context: int | None = None
    """Tokens of a perplexity window; None is the model's context."""
    stride: int | None = None
    """Tokens between perplexity windows; None is half the window."""
    limit: int | None = None
    """Take the first so many items of each task file; None takes all."""
    toxicity_scorer: str | None = None
    """Who judges toxicity: package.module:function (a list of texts in, a list of numbers out), or a reward model's
    checkpoint."""
    sentiment_scorer: str | None = None
    """Who judges sentiment, named in the same way."""
    allow_code_execution: bool = False
    """Let tasks of kind code run the programs that the model wrote, on this machine; no task file can say so."""
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
    records: str | None = None
    """jsonl for every item of the task files: prompt, answer, references and scores."""

    def check(self) -> None:
        """Refuse unknown tasks, tasks without data, and nothing to do."""
        templates = template_names()
        for task in self.tasks:
            if is_task_file(task):
                continue
            if task not in PLAIN_TASKS and task not in templates:
                known = [*PLAIN_TASKS, *templates]
                raise ConfigError(
                    f"evaluate: no task is called {task!r}{nearest(task, known)}; there are {', '.join(known)}, and "
                    "files that end in .toml."
                )
            needed = PLAIN_TASKS.get(task, "data")
            self.require(f"the task {task} needs {needed}", getattr(self, needed) is not None, **{needed: None})
        self.require(
            "give data or comparisons to measure on", bool(self.chosen()), data=self.data, comparisons=self.comparisons
        )
        self.require("batch_size must be at least 1", self.batch_size >= 1, batch_size=self.batch_size)
        self.require("limit must be at least 1", self.limit is None or self.limit >= 1, limit=self.limit)

    def chosen(self) -> list[str]:
        """The tasks to run: those named, or all whose data is given."""
        return list(self.tasks) or [name for name, needs in PLAIN_TASKS.items() if getattr(self, needs) is not None]
