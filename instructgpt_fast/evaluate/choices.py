"""Answers to choose from: what multiple choice and bias have in common. A model is asked how likely each one is.

A checkpoint of plain text reads the prompt as it is, and a choice follows it behind `before_choice`, usually a blank;
blanks at the end of the prompt count as the choice's, because a byte-level tokenizer joins a blank to the word after
it. A checkpoint of dialogues reads the prompt as one user message, and the choice, without `before_choice`, as the
answer. Prompt and choice are encoded apart, as in training and in generation.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from instructgpt_fast.checkpoint import Loaded
from instructgpt_fast.config import options_class
from instructgpt_fast.evaluate.items import Item, Items
from instructgpt_fast.evaluate.likelihood import Likelihood, loglikelihoods
from instructgpt_fast.evaluate.outcome import language_model
from instructgpt_fast.evaluate.task_file import TaskOptions


@options_class()
class ChoiceTask(TaskOptions):
    """Options of tasks whose items each have choices."""

    texts: ClassVar[tuple[str, ...]] = ("prompt",)

    prompt: str = ""
    """What stands before the choice; nothing asks how likely the choices are by themselves."""
    choices: str = "choices"
    """The field with the list of choices."""
    choice_texts: tuple[str, ...] = ()
    """The choices as texts with {placeholders}, for data that has no such list."""
    before_choice: str = " "
    """Text between a prompt and a choice, for checkpoints of plain text; not used behind an empty prompt."""

    def check(self) -> None:
        """Refuse a single choice, and texts whose placeholders cannot be read."""
        super().check()
        self.require("choice_texts must be two or more", len(self.choice_texts) != 1, choice_texts=self.choice_texts)
        for text in self.choice_texts:
            self.placeholders("choice_texts", text)

    def choices_of(self, item: Item) -> list[str]:
        """The choices of an item. Raises DataError with its line unless there are two or more, none empty."""
        if self.choice_texts:
            found = [self.fill_text(text, item) for text in self.choice_texts]
        else:
            found = item.texts(self.field(self.choices))
        if len(found) < 2 or not all(text.strip() for text in found):
            raise item.error(f"task: an item must have two or more choices, none empty, got {found!r}")
        return found


@dataclass(frozen=True)
class Asked:
    """One item with how likely the model finds each of its choices after `prompt`."""

    item: Item
    prompt: str
    choices: Sequence[str]
    likelihoods: Sequence[Likelihood]


def ask(
    name: str, loaded: Loaded, options: ChoiceTask, items: Items, batch_size: int, prompts: Sequence[str] | None = None
) -> tuple[list[Asked], int]:
    """Score every choice of every item; also how many choices had their prompt cut from the left to fit the context.

    prompts: one an item, in place of the options' own. Raises DataError with the line of a choice that alone is longer
    than the context.
    """
    model = language_model(name, loaded)
    prompts = [options.fill("prompt", item) for item in items] if prompts is None else prompts
    choices = [options.choices_of(item) for item in items]
    requests: list[tuple[list[int], list[int]]] = []
    cut = 0
    for item, prompt, texts in zip(items, prompts, choices, strict=True):
        for text in texts:
            before, after = encode_choice(loaded, prompt, text, options.before_choice)
            if len(after) > model.config.n_positions:
                raise item.error(
                    f"task: a choice must fit the model's context of {model.config.n_positions} tokens, got "
                    f"{len(after)}"
                )
            cut += len(before) + len(after) > model.config.n_positions + 1
            requests.append((before, after))
    if cut:
        warnings.warn(
            f"{name}: {cut} of {len(requests)} prompts with their choice are longer than the context of "
            f"{model.config.n_positions} tokens and lost their left end", stacklevel=2,
        )
    found = iter(loglikelihoods(model, loaded.tokenizer, requests, batch_size=batch_size))
    asked = [
        Asked(item, prompt, texts, [next(found) for _ in texts])
        for item, prompt, texts in zip(items, prompts, choices, strict=True)
    ]
    return asked, cut


def encode_choice(loaded: Loaded, prompt: str, choice: str, before_choice: str) -> tuple[list[int], list[int]]:
    """Tokens of prompt and choice; an empty prompt of plain text has none, which stands for EOS."""
    tokenizer = loaded.tokenizer
    if loaded.prompt_format == "dialogue":
        return tokenizer.encode_prompt(prompt, "dialogue"), tokenizer.encode(choice)
    kept = prompt.rstrip(" ")
    between = prompt[len(kept):] or (before_choice if prompt else "")
    return tokenizer.encode(kept), tokenizer.encode(between + choice)


def record_of(asked: Asked, **more: Any) -> Mapping[str, Any]:
    """What --records tells of an item."""
    return {
        "line": asked.item.line, "prompt": asked.prompt, "choices": list(asked.choices),
        "logprobs": [each.logprob for each in asked.likelihoods],
        "tokens": [each.tokens for each in asked.likelihoods], **more,
    }
