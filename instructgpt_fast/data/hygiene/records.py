"""What a record is to hygiene: its kind, the texts that are looked at, the text by which duplicates are found.

Not covered: fields that no stage learns from (names, places, notes) are kept as given and not looked at.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from instructgpt_fast.data.examples import Comparison, Demonstration, ExampleKind, Prompt, PromptText, Text, parse
from instructgpt_fast.data.hygiene.few_shot import Instruction
from instructgpt_fast.data.hygiene.options import Kind
from instructgpt_fast.errors import DataError

CLASSES: dict[str, type[ExampleKind]] = {
    "text": Text, "prompt": Prompt, "demonstration": Demonstration, "comparison": Comparison, "few_shot": Instruction,
}

# The fields that hold what people wrote, in the order in which they are read.
TEXT_FIELDS: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "prompt": ("prompt", "messages"),
    "demonstration": ("prompt", "messages", "response", "completion"),
    "comparison": ("prompt", "completions", "chosen", "rejected"),
    "few_shot": ("instruction", "pairs"),
}
_INNER = ("content", "query", "response")  # of messages, and of pairs written as objects


@dataclass(frozen=True)
class Record:
    """One record that could be read.

    prompt: what the model is given. whole: every text of the record, a line's end between two. user: who wrote it, if
    it says so. examples: how many it gives.
    """

    prompt: str
    whole: str
    user: str | None
    examples: int


def read_record(value: Any, kind: Kind, user_field: str) -> Record:
    """Check a JSON value as the stage that learns from it would. Raises DataError that names what is wrong."""
    example = parse(CLASSES[kind], value)
    user = value.get(user_field)
    if not (user is None or isinstance(user, str) or type(user) is int):
        raise DataError(f"prepare: {user_field!r} must be text or a whole number, got {type(user).__name__}")
    whole = "\n".join(texts_of(value, kind))
    if isinstance(example, Text):
        prompt = example.text
    elif isinstance(example, Instruction):
        prompt = whole
    elif isinstance(example, Prompt | Demonstration | Comparison):
        prompt = plain_prompt(example.prompt)
    else:
        raise DataError(f"prepare: no prompt is known of a {type(example).__name__}")
    count = len(example.pairs) if isinstance(example, Instruction) else 1
    name = None if user is None else str(user).strip()  # a blank name is nobody's, not everybody's
    return Record(prompt, whole, name or None, count)


def plain_prompt(prompt: PromptText) -> str:
    """A prompt as one text: the messages' contents, a line's end between two."""
    return prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt)


def texts_of(record: Mapping[str, Any], kind: Kind) -> list[str]:
    """Every text of a record that a stage learns from."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    map_texts(record, kind, note)
    return found


def map_texts(record: Mapping[str, Any], kind: Kind, change: Callable[[str], str]) -> dict[str, Any]:
    """Return the record with each of these texts replaced by `change(text)`; the other fields are the same objects."""
    result = dict(record)
    for name in TEXT_FIELDS[kind]:
        if name in result:
            result[name] = _mapped(result[name], change)
    return result


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _mapped(item, change) if name in _INNER else item for name, item in value.items()}
    return value


def detect_kind(value: Any) -> Kind | None:
    """The kind that a JSON value looks like, by its fields; None when it is like none."""
    if not isinstance(value, Mapping):
        return None
    if "pairs" in value:
        return "few_shot"
    if {"completions", "chosen", "rejected"} & value.keys():
        return "comparison"
    if "text" in value:
        return "text"
    messages = value.get("messages")
    if isinstance(messages, list) and messages:
        last = messages[-1]
        return "demonstration" if isinstance(last, Mapping) and last.get("role") == "assistant" else "prompt"
    if {"response", "completion"} & value.keys():
        return "demonstration"
    return "prompt" if "prompt" in value else None


def normalized(text: str) -> str:
    """The text by which duplicates are found: Unicode NFC, each run of white space one space, none at the ends [O].

    Letters keep their case: "Polish" and "polish" are two words. What differs so little is the near duplicates' matter.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())
