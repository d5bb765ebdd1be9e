"""The kinds of examples that the stages learn from, and how a JSON object becomes one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from instructgpt_fast.errors import DataError
from instructgpt_fast.tokenizer import Message, as_messages

__all__ = ["Comparison", "Demonstration", "Example", "ExampleKind", "Prompt", "PromptText", "Text", "parse"]

PromptText = str | tuple[Message, ...]
"""A prompt: plain text, which is one user message, or messages that end with the user's."""


class ExampleKind(ABC):
    """What every kind can do: be built from a JSON object, whose other fields are ignored."""

    @classmethod
    @abstractmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build an example; raises DataError that names the field and the rule it breaks."""


Example = TypeVar("Example", bound=ExampleKind)


@dataclass(frozen=True)
class Text(ExampleKind):
    """A document to pretrain on: {"text"}."""

    text: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build it from {"text"}."""
        return cls(_nonempty(_field(record, ("text",), "text"), "'text'", "text"))


@dataclass(frozen=True)
class Prompt(ExampleKind):
    """A prompt to answer: {"prompt"}, or {"messages"} of which an answer at the end is left out."""

    prompt: PromptText

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build it from {"prompt"} or {"messages"}."""
        return cls(_prompt(record, "prompt"))


@dataclass(frozen=True)
class Demonstration(ExampleKind):
    """A prompt with the response a person wrote: {"prompt", "response"} (or "completion"), or {"messages"}."""

    prompt: PromptText
    response: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build it from {"prompt", "response"}, {"prompt", "completion"} or {"messages"}."""
        return cls(*_demonstration(record, "demonstration"))


@dataclass(frozen=True)
class Comparison(ExampleKind):
    """A prompt with K >= 2 completions and their ranks: 1 is best, equal ranks are a tie.

    {"prompt", "completions", "ranks"}, or {"prompt", "chosen", "rejected"}, which is K = 2.
    """

    prompt: PromptText
    completions: tuple[str, ...]
    ranks: tuple[int, ...]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build it from {"prompt", "completions", "ranks"} or from "chosen" and "rejected"."""
        return cls(*_comparison(record, "comparison"))


def parse(kind: type[Example], record: Any) -> Example:
    """Build an example of `kind` from one JSON value. Raises DataError that names what is wrong."""
    if not isinstance(record, Mapping):
        raise DataError(f"{kind.__name__.lower()}: a record must be an object, got {_kind(record)}")
    return kind.from_record(record)


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", dict: "an object", list: "a list", str: "text"}
    return names.get(type(value), type(value).__name__)


def _field(record: Mapping[str, Any], names: Sequence[str], who: str) -> Any:
    found = [name for name in names if name in record]
    if len(found) != 1:
        wanted = " or ".join(repr(name) for name in names)
        got = ", ".join(repr(key) for key in record) or "no fields"
        raise DataError(f"{who}: a record needs {'one of ' if len(names) > 1 else ''}{wanted}, got {got}")
    return record[found[0]]


def _nonempty(value: Any, what: str, who: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{who}: {what} must be text, got {_kind(value)}")
    if not value:
        raise DataError(f"{who}: {what} must not be empty")
    return value


def _prompt_of(value: Any, who: str) -> PromptText:
    if isinstance(value, str):
        return _nonempty(value, "'prompt'", who)
    messages = as_messages(value)
    if messages[-1].role != "user":
        raise DataError(f"{who}: a prompt must end with the user's message, got the {messages[-1].role}'s")
    return messages


def _prompt(record: Mapping[str, Any], who: str) -> PromptText:
    if "messages" not in record:
        return _prompt_of(_field(record, ("prompt",), who), who)
    messages = as_messages(record["messages"])
    answered = messages[-1].role == "assistant"
    return _prompt_of(messages[:-1] if answered else messages, who)


def _response_of(value: Any, what: str, who: str) -> str:
    """A response as text, or as a list of one assistant message, which is how TRL writes dialogues."""
    if isinstance(value, str):
        return _nonempty(value, what, who)
    only = value[0] if isinstance(value, Sequence) and len(value) == 1 else None
    if not isinstance(only, Mapping) or only.get("role") != "assistant":
        raise DataError(f"{who}: {what} must be text or a list of one assistant message, got {_kind(value)}")
    return _nonempty(only.get("content"), what, who)


def _demonstration(record: Mapping[str, Any], who: str) -> tuple[PromptText, str]:
    if "messages" in record:
        messages = as_messages(record["messages"])
        if messages[-1].role != "assistant":
            raise DataError(f"{who}: 'messages' must end with the assistant's, got the {messages[-1].role}'s")
        return messages[:-1], _nonempty(messages[-1].content, "the last message", who)
    response = _response_of(_field(record, ("response", "completion"), who), "'response'", who)
    return _prompt_of(_field(record, ("prompt",), who), who), response


def _comparison(record: Mapping[str, Any], who: str) -> tuple[PromptText, tuple[str, ...], tuple[int, ...]]:
    if "chosen" in record or "rejected" in record:
        return _chosen_and_rejected(record, who)
    completions = _field(record, ("completions",), who)
    if not isinstance(completions, list) or len(completions) < 2:
        count = len(completions) if isinstance(completions, list) else _kind(completions)
        raise DataError(f"{who}: 'completions' must be a list of at least 2 responses, got {count}")
    texts = tuple(_response_of(item, f"completion {place}", who) for place, item in enumerate(completions))
    ranks = _field(record, ("ranks",), who)
    if not isinstance(ranks, list) or len(ranks) != len(texts):
        count = len(ranks) if isinstance(ranks, list) else _kind(ranks)
        raise DataError(f"{who}: 'ranks' must have one rank for each of the {len(texts)} completions, got {count}")
    if not all(type(rank) is int and rank >= 1 for rank in ranks):
        raise DataError(f"{who}: every rank must be a whole number from 1 (the best), got {ranks}")
    return _prompt_of(_field(record, ("prompt",), who), who), texts, tuple(ranks)


def _chosen_and_rejected(
    record: Mapping[str, Any], who: str
) -> tuple[PromptText, tuple[str, ...], tuple[int, ...]]:
    chosen, rejected = (_field(record, (name,), who) for name in ("chosen", "rejected"))
    if "prompt" in record:
        texts = (_response_of(chosen, "'chosen'", who), _response_of(rejected, "'rejected'", who))
        return _prompt_of(record["prompt"], who), texts, (1, 2)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise DataError(f"{who}: 'chosen' and 'rejected' as text need 'prompt' beside them")
    first, second = as_messages(chosen), as_messages(rejected)
    if first[:-1] != second[:-1] or {first[-1].role, second[-1].role} != {"assistant"}:
        raise DataError(f"{who}: 'chosen' and 'rejected' must be one dialogue up to the assistant's last message")
    return _prompt_of(first[:-1], who), (first[-1].content, second[-1].content), (1, 2)
