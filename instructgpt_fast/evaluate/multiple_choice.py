"""Task files of kind multiple_choice: the answer is the choice that the model finds likeliest.

Choices of different length are made comparable in one of three ways, each a metric of its own:
  average        log-probability over tokens; the paper's (Ouyang et al. 2022, appendix D) [P]: metric accuracy
  sum            log-probability as it is: metric accuracy_sum
  unconditional  log of P(choice | prompt) / P(choice | answer_context), which takes out what makes a choice likely
                 anywhere (Brown et al. 2020, arXiv:2005.14165, section 2.4): metric accuracy_unconditional
Choices that are equally likely share the item, so that a model without an opinion scores what chance does, wherever the
right choice stands. Solved examples are drawn for each item as for answers that the model
writes itself (evaluate/prompts.py), each with its right choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from instructgpt_fast.checkpoint import Loaded
from instructgpt_fast.config import options_class
from instructgpt_fast.data import OnBadLine
from instructgpt_fast.evaluate.choices import Asked, ChoiceTask, ask, record_of
from instructgpt_fast.evaluate.items import Item, Items, read_items
from instructgpt_fast.evaluate.measure import Measure
from instructgpt_fast.evaluate.outcome import Outcome
from instructgpt_fast.evaluate.prompts import draw_examples
from instructgpt_fast.evaluate.task_file import Task
from instructgpt_fast.tokenizer.few_shot import FewShot

Score = Literal["average", "sum", "unconditional"]


@options_class()
class MultipleChoiceTask(ChoiceTask):
    """Questions with choices, one of them right."""

    paths: ClassVar[tuple[str, ...]] = ("data", "shots_data")
    texts: ClassVar[tuple[str, ...]] = ("prompt", "instruction", "answer_context")

    answer: str = "answer"
    """The field with the right choice: its number, its letter, or its text."""
    first_number: int = 0
    """What number the data gives the first choice."""
    scores: tuple[Score, ...] = ("average",)
    """How choices are compared: average (per token), sum, unconditional; each is a metric."""
    answer_context: str = "Answer:"
    """What unconditional takes in place of the prompt."""
    instruction: str | None = None
    """Said once, before the examples and the prompt."""
    shots: int = 0
    """Solved examples before each prompt."""
    shots_data: str | None = None
    """jsonl that the examples are drawn from, with the fields of `data`."""
    shots_seed: int = 0
    """Which examples are drawn."""
    separator: str = "\n\n"
    """What stands behind the instruction and behind each example."""

    def check(self) -> None:
        """Refuse no way to compare, one named twice, and examples from nowhere."""
        super().check()
        self.require("shots must not be negative, and needs shots_data as shots_data needs shots",
                     self.shots >= 0 and bool(self.shots) == (self.shots_data is not None),
                     shots=self.shots, shots_data=self.shots_data)
        once = bool(self.scores) and len(set(self.scores)) == len(self.scores)
        self.require("scores must name at least one way to compare, each once", once, scores=self.scores)

    def right(self, item: Item, choices: Sequence[str]) -> int:
        """Place of the right choice. Raises DataError with the item's line when there is none."""
        value = item.get(self.field(self.answer))
        place = None
        if isinstance(value, int) and not isinstance(value, bool):
            place = value - self.first_number
        elif isinstance(value, str) and value in choices:
            place = choices.index(value)
        elif isinstance(value, str) and len(value.strip()) == 1 and value.strip().upper() in _LETTERS:
            place = _LETTERS.index(value.strip().upper())
        elif isinstance(value, str) and value.strip().isdecimal():
            place = int(value) - self.first_number
        if place is None or not 0 <= place < len(choices):
            raise item.error(
                f"task: {self.answer!r} must be the number (from {self.first_number}), the letter or the text of one "
                f"of {len(choices)} choices, got {value!r}"
            )
        return place


    def solved(self, item: Item) -> tuple[str, str]:
        """Prompt and right choice of an example."""
        choices = self.choices_of(item)
        return self.fill("prompt", item), self.before_choice + choices[self.right(item, choices)]


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def run_multiple_choice(task: Task, loaded: Loaded, config: Any) -> Outcome:
    """Share of items whose likeliest choice is the right one; config: an EvaluateConfig."""
    options: MultipleChoiceTask = task.options
    items = read_items(options.data, options.limit, config.limit, on_bad_line=config.on_bad_line)
    right = [options.right(item, options.choices_of(item)) for item in items]
    prompts, examples = _prompts(options, items, config.on_bad_line)
    asked, cut = ask(task.name, loaded, options, items, config.batch_size, prompts)
    anywhere: Sequence[Asked] = asked
    if "unconditional" in options.scores:
        contexts = [options.fill("answer_context", item) for item in items]
        anywhere, _ = ask(task.name, loaded, options, items, config.batch_size, contexts)
    found = {
        score: [scores_of(score, one, base) for one, base in zip(asked, anywhere, strict=True)]
        for score in options.scores
    }
    measures = [
        Measure(
            task.name, "accuracy" if score == "average" else f"accuracy_{score}",
            np.array([credit(of_choices, truth) for of_choices, truth in zip(found[score], right, strict=True)]),
            bounds=(0.0, 1.0), data=items.identity,
        )
        for score in options.scores
    ]
    records = [
        record_of(one, answer=truth, chosen={score: int(np.argmax(found[score][place])) for score in options.scores})
        for place, (one, truth) in enumerate(zip(asked, right, strict=True))
    ]
    about: dict[str, Any] = {
        "data": str(items.path), "sha256": items.sha256, "items": len(items), "skipped": items.skipped,
        "cut": cut, "chance": float(np.mean([1 / len(one.choices) for one in asked])), "shots": options.shots,
        "prompt": options.prompt, "instruction": options.instruction,
    }
    if examples is not None:
        about["shots_data"] = {"data": str(examples.path), "sha256": examples.sha256}
    return Outcome(measures, records, about)


def credit(scores: Sequence[float], right: int) -> float:
    """1 where the right choice alone scores highest, 1 / n where it is one of n that do, else 0."""
    best = np.flatnonzero(np.asarray(scores) == np.max(scores))
    return float(right in best) / len(best)


def _prompts(options: MultipleChoiceTask, items: Items, on_bad_line: OnBadLine) -> tuple[list[str], Items | None]:
    """The text before the choices of each item, and the file that its examples were drawn from."""
    examples = read_items(options.shots_data, on_bad_line=on_bad_line) if options.shots_data else None
    texts = []
    for place, item in enumerate(items):
        drawn = [] if examples is None else draw_examples(options, items, examples, place)
        instruction = None if options.instruction is None else options.fill("instruction", item)
        shown = FewShot([options.solved(one) for one in drawn], instruction, between="", separator=options.separator)
        texts.append(str(shown.prompt(options.fill("prompt", item), "raw")))
    return texts, examples


def scores_of(score: Score, asked: Asked, anywhere: Asked) -> list[float]:
    """One number a choice, the highest for the likeliest; `anywhere` holds the choices after answer_context."""
    if score == "average":
        return [each.per_token for each in asked.likelihoods]
    if score == "sum":
        return [each.logprob for each in asked.likelihoods]
    pairs = zip(asked.likelihoods, anywhere.likelihoods, strict=True)
    return [here.logprob - base.logprob for here, base in pairs]
