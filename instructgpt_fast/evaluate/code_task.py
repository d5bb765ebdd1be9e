"""Task files of kind code: the model writes programs, their tests decide (Chen et al. 2021, arXiv:2107.03374).

Programs that nobody has read are run on this machine, so nothing happens unless the caller, not the task file, says
allow_code_execution. How they are held: evaluate/code_jail.py, which also says what that does not hold.
A checkpoint of dialogues reads the prompt as one user message; of its answer the first fenced block counts, or all of
it where there is none.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, ClassVar

import numpy as np

from instructgpt_fast.checkpoint import Loaded
from instructgpt_fast.config import options_class
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate.code_sandbox import CodeLimits, CodeProblem, Verdict, missing_isolation, run_programs
from instructgpt_fast.evaluate.items import Items, read_items
from instructgpt_fast.evaluate.measure import Measure
from instructgpt_fast.evaluate.outcome import Outcome, language_model
from instructgpt_fast.evaluate.pass_at_k import pass_at_k
from instructgpt_fast.evaluate.task_file import Task, TaskOptions
from instructgpt_fast.generate import Completion, SamplingConfig, complete

_FENCED = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


@options_class()
class CodeTask(TaskOptions):
    """Problems as HumanEval has them: the beginning of a function, tests that define check(candidate), its name."""

    texts: ClassVar[tuple[str, ...]] = ("prompt", "before", "tests", "entry_point")

    prompt: str = "{prompt}"
    """What the model reads."""
    before: str = "{prompt}"
    """What stands before the answer in the program that is run."""
    tests: str = "{test}"
    """What stands behind it."""
    entry_point: str = "{entry_point}"
    """The function that `check`, which the tests define, is called with; empty when they call it themselves."""
    n: int = 1
    """Programs drawn for each problem."""
    k: tuple[int, ...] = (1,)
    """pass@k for each of these, at most n."""
    temperature: float = 0.0
    """0 takes the likeliest token [P]; Chen et al. draw at 0.2 for pass@1 and at 0.8 for pass@100."""
    top_p: float = 1.0
    """Draw from the fewest tokens whose probabilities sum to this; Chen et al. take 0.95."""
    seed: int = 0
    """Which programs are drawn."""
    stop: tuple[str, ...] = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    """Texts that end a program, as in Chen et al., for checkpoints of plain text."""
    max_new_tokens: int = 512
    """Most tokens of a program [O]."""
    seconds: float = 10.0
    """Wall-clock time, and CPU time, that a program may take [O]."""
    memory_mb: int = 1024
    """Address space that a program may take [O]."""

    def check(self) -> None:
        """Refuse numbers of programs that do not go together, and limits that leave nothing."""
        super().check()
        self.require("n must be at least 1", self.n >= 1, n=self.n)
        self.require("k must name one or more numbers in 1..n, each once",
                     bool(self.k) and len(set(self.k)) == len(self.k) and all(1 <= k <= self.n for k in self.k),
                     k=self.k, n=self.n)
        self.require("n programs of a problem are all the same at temperature 0", self.n == 1 or self.temperature > 0,
                     n=self.n, temperature=self.temperature)
        self.require("seconds must lie in (0, 600]", 0 < self.seconds <= 600, seconds=self.seconds)
        self.require("memory_mb must be at least 64", self.memory_mb >= 64, memory_mb=self.memory_mb)
        SamplingConfig(**self.sampling("raw"))

    def ready(self, task: Task, config: Any) -> None:
        """Refuse to run foreign programs without consent."""
        if not config.allow_code_execution:
            raise ConfigError(
                f"{task.name}: a task of kind code runs programs that a model wrote, unread, on this machine, so it "
                "needs allow_code_execution=True, got False; pass --allow-code-execution if you accept that. Limits "
                "hold an accident, not an attack: use a virtual machine for models that you do not trust."
            )

    def sampling(self, prompt_format: str) -> dict[str, Any]:
        """Options of the answers; a dialogue ends its own turns."""
        names = ("max_new_tokens", "temperature", "top_p", "seed")
        return {**{name: getattr(self, name) for name in names}, "stop": self.stop if prompt_format == "raw" else ()}


def run_code(task: Task, loaded: Loaded, config: Any) -> Outcome:
    """Draw programs, run them with their tests, and tell pass@k; config: an EvaluateConfig.

    Raises ConfigError without allow_code_execution, and where the sandbox does not work.
    """
    options: CodeTask = task.options
    options.ready(task, config)  # whoever calls this
    language_model(task.name, loaded)
    missing = missing_isolation()
    if missing:
        warnings.warn(
            f"{task.name}: the kernel did not cut programs off from: {', '.join(missing)}; limits of time, memory and "
            "processes hold", stacklevel=2,
        )
    items = read_items(options.data, options.limit, config.limit, on_bad_line=config.on_bad_line)
    tests = [(options.fill("tests", item), options.fill("entry_point", item)) for item in items]
    before = [options.fill("before", item) for item in items]
    prompts = [options.fill("prompt", item) for item in items]
    found = complete(
        loaded, prompts, n=options.n, batch_size=config.batch_size, **options.sampling(loaded.prompt_format)
    )
    several: list[list[Completion]] = found if options.n > 1 else [[one] for one in found]
    problems = [
        CodeProblem(program_of(start, answer.text, loaded.prompt_format), *judged)
        for start, judged, answers in zip(before, tests, several, strict=True) for answer in answers
    ]
    verdicts = run_programs(problems, CodeLimits(options.seconds, options.memory_mb))
    grouped = [verdicts[first:first + options.n] for first in range(0, len(verdicts), options.n)]
    records = [
        {
            "line": item.line, "prompt": prompt, "answers": [one.text for one in answers],
            "outcomes": [one.outcome for one in judged], "details": [one.detail for one in judged],
        }
        for item, prompt, answers, judged in zip(items, prompts, several, grouped, strict=True)
    ]
    return Outcome(_measures(task.name, options, items, grouped), records, _about(options, items, loaded, missing))


def program_of(before: str, answer: str, prompt_format: str) -> str:
    """The program to run: what stands before the answer, and the answer, or of a dialogue's answer its code."""
    if prompt_format != "dialogue":
        return before + answer
    fenced = _FENCED.search(answer)
    return f"{before}\n{fenced.group(1) if fenced else answer}"


def _measures(name: str, options: CodeTask, items: Items, verdicts: list[list[Verdict]]) -> list[Measure]:
    correct = [sum(each.passed for each in judged) for judged in verdicts]
    late = [sum(each.outcome == "timed_out" for each in judged) / options.n for judged in verdicts]
    measures = [
        Measure(
            name, f"pass@{k}", np.array([pass_at_k(options.n, count, k) for count in correct]), bounds=(0.0, 1.0),
            data=items.identity,
        )
        for k in options.k
    ]
    slow = Measure(name, "timed_out", np.array(late), higher_is_better=False, bounds=(0.0, 1.0), data=items.identity)
    return [*measures, slow]


def _about(options: CodeTask, items: Items, loaded: Loaded, missing: tuple[str, ...]) -> dict[str, Any]:
    return {
        "data": str(items.path), "sha256": items.sha256, "items": len(items), "skipped": items.skipped,
        "n": options.n, "sampling": options.sampling(loaded.prompt_format),
        "limits": {"seconds": options.seconds, "memory_mb": options.memory_mb}, "not_cut_off_from": list(missing),
    }
