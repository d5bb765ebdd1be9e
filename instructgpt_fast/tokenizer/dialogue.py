"""Who says what in a dialogue, and in which order the turns may come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from instructgpt_fast.errors import DataError

__all__ = ["ROLES", "Encoded", "Message", "PromptFormat", "Role", "as_messages", "check_order", "only_text"]

PromptFormat = Literal["raw", "dialogue"]
"""How a prompt becomes tokens: its text alone ("raw"), or turns between role tokens ("dialogue")."""

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


class Message(NamedTuple):
    """One turn of a dialogue; `role` is one of `ROLES`."""

    role: Role
    content: str


class Encoded(NamedTuple):
    """Tokens and, aligned with them, whether each counts in the loss: a response and its end do, a prompt does not."""

    tokens: list[int]
    loss_mask: list[bool]


def as_messages(value: Any) -> tuple[Message, ...]:
    """Turn a sequence of messages or of {"role", "content"} objects into messages, in an order that makes sense.

    A system message may come first; then user and assistant alternate, beginning with the user.
    Raises DataError saying which message breaks which rule.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise DataError(f"messages: must be a list of at least one message, got {_kind(value)}")
    messages = tuple(_as_message(place, item) for place, item in enumerate(value))
    check_order(messages)
    return messages


def only_text(prompt: Any) -> str:
    """Return a prompt for the raw format: text, or one user message. Raises DataError for more than one message."""
    if isinstance(prompt, str):
        return prompt
    messages = as_messages(prompt)
    if len(messages) != 1 or messages[0].role != "user":
        raise DataError(
            f"messages: the raw format has no roles, so it takes one user message, got {len(messages)} messages; "
            "use prompt_format='dialogue'"
        )
    return messages[0].content


def check_order(messages: Sequence[Message]) -> None:
    """Refuse a system message after the first, and two turns in a row by the same side."""
    turns = messages[1:] if messages[0].role == "system" else messages
    if not turns:
        raise DataError("messages: a system message alone is no dialogue; add a user message")
    for place, message in enumerate(turns, start=len(messages) - len(turns)):
        expected = ROLES[1 + (place - (len(messages) - len(turns))) % 2]
        if message.role != expected:
            raise DataError(
                f"messages: user and assistant must alternate, beginning with the user; message {place} "
                f"must be from {expected!r}, got {message.role!r}"
            )


def _as_message(place: int, item: Any) -> Message:
    if isinstance(item, Message):
        role, content = item
    elif isinstance(item, Mapping):
        unknown = [key for key in ("role", "content") if key not in item]
        if unknown:
            raise DataError(f"messages: message {place} lacks {unknown[0]!r}; a message is {{'role', 'content'}}")
        role, content = item["role"], item["content"]
    else:
        raise DataError(f"messages: message {place} must be an object with 'role' and 'content', got {_kind(item)}")
    if role not in ROLES:
        raise DataError(f"messages: the role of message {place} must be one of {', '.join(ROLES)}, got {role!r}")
    if not isinstance(content, str):
        raise DataError(f"messages: the content of message {place} must be text, got {_kind(content)}")
    return Message(role, content)


def _kind(value: Any) -> str:
    return "an empty list" if isinstance(value, Sequence) and not value else type(value).__name__
