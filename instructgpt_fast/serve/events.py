"""Server-sent events of JSON; what all tokens of a choice have in common is put into JSON once for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Made once: json.dumps with these options would make an encoder at every call.
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(content: Mapping[str, Any]) -> str:
    """One event."""
    return f"data: {to_json(content)}\n\n"


class Chunks:
    """The events of one choice: only its text, its log-probability and its end differ from token to token."""

    def __init__(
        self, head: Mapping[str, Any], index: int, *, text: str, no_text: str, more: Mapping[str, Any] | None = None
    ) -> None:
        """head, more: fields before and after the choices. text: a choice's field as JSON, with %s in the place of the
        text, and no_text: the same for a token without a text."""
        self._text, self._no_text = text, no_text
        self._before = f'data: {to_json(head)[:-1]},"choices":[{{"index":{index},'
        self._after = "}]" + (f",{to_json(more)[1:-1]}" if more else "") + "}\n\n"

    def event(self, text: str, logprobs: Mapping[str, Any] | None, reason: str | None) -> str:
        """One event. text: "" for none; logprobs and the reason why the choice ended: None for null."""
        field = self._text % to_json(text) if text else self._no_text
        told = "null" if logprobs is None else to_json(logprobs)
        ended = "null" if reason is None else to_json(reason)
        return f'{self._before}{field},"logprobs":{told},"finish_reason":{ended}{self._after}'
