"""Events put together from prepared pieces are the JSON that a whole object would be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from instructgpt_fast.serve.events import Chunks, event

HEAD = {"id": "cmpl-1", "created": 1, "model": 'a "model" of 100 %s %d\n{}'}
LOGPROBS = {"tokens": ["%s"], "token_logprobs": [-1.2345678901234567e-05], "top_logprobs": None}


def read(told: str) -> Any:
    assert told.startswith("data: ") and told.endswith("\n\n") and "\n" not in told[:-2], "one line, then an empty one"
    return json.loads(told[len("data: ") :])


@pytest.mark.parametrize("more", [None, {"usage": None}])
@pytest.mark.parametrize("reason", [None, "stop"])
@pytest.mark.parametrize("logprobs", [None, LOGPROBS])
@pytest.mark.parametrize("text", ["", "plain", '"quoted" \\ %s %% {}', "line\nend\r\u2028\x00", "東京 😀"])
def test_a_chunk_is_its_object(text: str, logprobs: Any, reason: str | None, more: Any) -> None:
    chunks = Chunks(HEAD, 7, text='"delta":{"content":%s}', no_text='"delta":{}', more=more)
    delta = {"content": text} if text else {}
    choice = {"index": 7, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    expected = {**HEAD, "choices": [choice], **(more or {})}
    told = chunks.event(text, logprobs, reason)
    assert read(told) == expected
    assert told == event(expected), "the same text, in the same order"
