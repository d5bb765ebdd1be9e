"""Options of an evaluation."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from instructgpt_fast.config import Options, nearest, options_class
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate.task_file import is_task_file, template_names

# Tasks that need no file: the option that names their data.
PLAIN_TASKS = {"perplexity": "data", "reward_accuracy": "comparisons"}


@options_class()
class EvaluateConfig(Options):
    """What to measure, on which checkpoint and data; or which checkpoints to hold against each other."""

    stage: ClassVar[str] = "evaluate"

    checkpoint: str | None = None
    """Checkpoint or run directory of the model."""
    alignment_tax: tuple[str, ...] = ()
    """In place of checkpoint: several, the one before alignment first (base sft ppo ppo_ptx), whose differences to the
    first are told with intervals. Without tasks, --data is a folder with the data of the paper's."""
    win_rate: tuple[str, ...] = ()
    """In place of checkpoint: two, whose answers to --prompts a --judge compares, or whose names stand in --comparisons
    that people ranked."""
    tasks: tuple[str, ...] = ()
    """perplexity, reward_accuracy, task files (.toml), or templates (translation, ...) whose data is --data; none takes
    perplexity and reward_accuracy, each when its data is given."""
    data: str | None = None
    """Text for perplexity: a .txt or .jsonl file, a folder of them, or token shards; for a template: its jsonl."""
    comparisons: str | None = None
    """jsonl of comparisons for reward_accuracy; for win_rate, as the labelling page exports them."""
    prompts: str | None = None
    """jsonl of prompts that win_rate lets both checkpoints answer."""
    judge: str | None = None
    """Who scores these answers: a reward model's checkpoint, or package.module:function (a list of texts in, a list of
    numbers out)."""
    max_new_tokens: int = 256
    """Most tokens of an answer for win_rate [O]."""
    temperature: float = 1.0
    """Of answers for win_rate; 1 is what the policy was trained at [P]."""
    seed: int = 0
    """Which answers are drawn for win_rate."""
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
        given = [name for name in ("checkpoint", "alignment_tax", "win_rate") if getattr(self, name)]
        self.require("give one of checkpoint, alignment_tax and win_rate", len(given) == 1, given=given)
        self.require("batch_size must be at least 1", self.batch_size >= 1, batch_size=self.batch_size)
        self.require("limit must be at least 1", self.limit is None or self.limit >= 1, limit=self.limit)
        if self.win_rate:
            self._check_win_rate()
        else:
            self._only("win_rate, and a task file says its own", "prompts", "judge", "max_new_tokens", "temperature",
                       "seed")
            self._check_tasks()

    def _only(self, owner: str, *names: str) -> None:
        """Refuse options that would do nothing here rather than leave them unheard."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in names:
            value = getattr(self, name)
            self.require(f"{name} is for {owner}", value == defaults[name], **{name: value})

    def _check_win_rate(self) -> None:
        self.require("win_rate compares two checkpoints", len(self.win_rate) == 2, win_rate=self.win_rate)
        self.require("win_rate has no tasks", not self.tasks, tasks=self.tasks)
        self._only("tasks, of which win_rate has none", "data", "context", "stride", "toxicity_scorer",
                   "sentiment_scorer", "allow_code_execution")
        self.require(
            "win_rate needs prompts and a judge, or comparisons",
            (self.prompts is None) == (self.judge is None) and (self.prompts is None) != (self.comparisons is None),
            prompts=self.prompts, judge=self.judge, comparisons=self.comparisons,
        )
        if self.comparisons is not None:
            self._only("answers to prompts, and comparisons hold answers", "max_new_tokens", "temperature", "seed",
                       "records")
        self.require("max_new_tokens must be at least 1", self.max_new_tokens >= 1, max_new_tokens=self.max_new_tokens)
        self.require("temperature must not be negative", self.temperature >= 0, temperature=self.temperature)

    def _check_tasks(self) -> None:
        self.require(
            "alignment_tax compares two checkpoints or more", len(self.alignment_tax) != 1,
            alignment_tax=self.alignment_tax,
        )
        templates = template_names()
        used: set[str] = set()
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
            used.add(needed)
            self.require(f"the task {task} needs {needed}", getattr(self, needed) is not None, **{needed: None})
        if self.alignment_tax and not self.tasks:
            self.require("alignment_tax needs tasks, or as data a folder with the paper's", self.data is not None,
                         data=self.data)
            used.add("data")
        if self.tasks or self.alignment_tax:
            for name in {"data", "comparisons"} - used:
                self.require(f"no task reads {name}", getattr(self, name) is None, **{name: getattr(self, name)})
        self.require("give tasks, data or comparisons to measure on", bool(self.chosen()), tasks=self.tasks,
                     data=self.data, comparisons=self.comparisons)

    def chosen(self) -> list[str]:
        """The tasks to run: those named, or all whose data is given."""
        return list(self.tasks) or [name for name, needs in PLAIN_TASKS.items() if getattr(self, needs) is not None]
