"""Prompts of a task: the template filled for each item, solved examples before it, shortened to fit the context.

The examples of an item are drawn from the training file anew for each item, without replacement (Brown et al. 2020,
arXiv:2005.14165, section 2.4), by the seed and the item's place: the same on every checkpoint. The prompt is one text
whatever the model: a model of dialogues reads it as one message of the user.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from instructgpt_fast.checkpoint import Loaded
from instructgpt_fast.data import OnBadLine
from instructgpt_fast.errors import DataError
from instructgpt_fast.evaluate.items import Item, Items, read_items
from instructgpt_fast.tokenizer.few_shot import FewShot


@dataclass(frozen=True)
class Prompts:
    """The text of each item's prompt; shortened: how many lost the end of a field."""

    texts: Sequence[str]
    shortened: int
    examples: Items | None


def make_prompts(options: Any, items: Items, loaded: Loaded, on_bad_line: OnBadLine) -> Prompts:
    """Build and check the prompt of every item; options: a GenerationTask.

    Raises DataError with file and line for a missing field, a prompt that is empty, and one that leaves no room for
    max_new_tokens in the context; with too few lines in shots_data.
    """
    examples = None
    if options.shots:
        examples = read_items(options.shots_data, on_bad_line=on_bad_line)
    texts, shortened = [], 0
    for place, item in enumerate(items):
        drawn = [] if examples is None else draw_examples(options, items, examples, place)
        pairs = [_solved(options, one) for one in drawn]
        text, cut = _fitting(options, item, pairs, loaded)
        texts.append(text)
        shortened += cut
    return Prompts(texts, shortened, examples)


def references_of(options: Any, item: Item) -> list[str]:
    """What would be right for an item; none for a task without answers. Raises DataError with file and line."""
    names = [options.answers] if isinstance(options.answers, str) else list(options.answers)
    found = [text for name in names for text in item.texts(options.field(name))]
    if options.labels:
        wrong = [text for text in found if text not in options.labels]
        if wrong:
            raise item.error(f"task: an answer must be one of the labels {list(options.labels)}, got {wrong[0]!r}")
    return found


def draw_examples(options: Any, items: Items, examples: Items, place: int) -> list[Item]:
    """The solved examples of the item at `place`; never the item itself when both come from one file."""
    same = items.sha256 == examples.sha256
    others = [one for one in examples if not (same and one.line == items[place].line)]
    if len(others) < options.shots:
        raise DataError(
            f"task: shots_data must have at least {options.shots} examples for shots={options.shots}, got "
            f"{len(others)}; lower shots", examples.path,
        )
    return random.Random(f"{options.shots_seed}:{place}").sample(others, options.shots)


def _solved(options: Any, example: Item) -> tuple[str, str]:
    right = references_of(options, example)
    answer = right[0] if right else options.no_answer
    if not answer:
        raise example.error("task: an example must have an answer to show, got none; add one, or set no_answer")
    return options.fill("prompt", example), options.answer_prefix + answer


def _text(options: Any, item: Item, pairs: Sequence[tuple[str, str]]) -> str:
    instruction = None if options.instruction is None else options.fill("instruction", item)
    few_shot = FewShot(pairs, instruction=instruction, between="", separator=options.separator)
    return str(few_shot.prompt(options.fill("prompt", item), "raw"))


def _fitting(options: Any, item: Item, pairs: Sequence[tuple[str, str]], loaded: Loaded) -> tuple[str, bool]:
    """The prompt, and whether its field `shorten` lost its end so that prompt and answer fit the context."""
    context, tokenizer = loaded.model.config.n_positions, loaded.tokenizer
    room = context - options.max_new_tokens
    text, shorter = _text(options, item, pairs), item
    name = "" if options.shorten is None else options.field(options.shorten)
    while (over := len(tokenizer.encode_prompt(text, loaded.prompt_format)) - room) > 0:
        tokens = tokenizer.encode(shorter.text(name)) if name else []
        if len(tokens) <= over:
            raise item.error(
                f"task: a prompt must leave room for max_new_tokens={options.max_new_tokens} in the context of "
                f"{context} tokens, got a prompt of {over + room} tokens; set shorten to a placeholder whose text may "
                "lose its end, take fewer shots, or lower max_new_tokens"
            )
        # Half a character at the cut would come back as a replacement sign.
        kept = tokenizer.decode(tokens[:-over]).rstrip("\ufffd")
        shorter = dataclasses.replace(shorter, values={**shorter.values, name: kept})
        text = _text(options, shorter, pairs)
    if not text:
        raise item.error("task: a prompt must not be empty, got nothing from its fields")
    return text, shorter is not item
