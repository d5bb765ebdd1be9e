"""What a body may say: every field that is wrong is named, with what was found and what would be right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from instructgpt_fast.serve.errors import ApiError
from instructgpt_fast.serve.protocol import ChatRequest, CompletionRequest, Sampled, parse

TEXT = {"model": "m", "prompt": "x"}
TALK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def refusal(cls: type[Sampled], body: Any) -> ApiError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as raised:
        parse(cls, raw)
    assert raised.value.status == 400
    assert len(raised.value.message) < 300, "a body must not come back as its own error"
    return raised.value


@pytest.mark.parametrize(("raw", "told"), [
    (b"", "must be JSON"), (b"{", "must be JSON"), (b"[1]", "must be a JSON object"), (b"null", "a JSON object"),
    (b"\xff\xfe{}", "must be JSON"), (b'{"model": "m", "prompt": "\xff"}', "unicode"),
    (b'{"model": "m", "prompt": "\\ud800"}', "must be JSON"), (b"[" * 100_000, "recursion limit"),
    (b'{"a":' * 100_000, "recursion limit"), (b'{"model": "m", "prompt": "x", "temperature": NaN}', "finite"),
    (b'{"model": "m", "prompt": "x", "temperature": -Infinity}', "finite"),
    (b'{"model": "m", "prompt": "x", "temperature": 1e999}', "finite"),
    (b'{"model": "m", "prompt": "x", "seed": ' + b"9" * 5000 + b"}", "out of range"),
    (b'{"model": "m", "prompt": "x", "seed": 1e3}', "integer"),
])
def test_malformed_bodies(raw: bytes, told: str) -> None:
    assert told in refusal(CompletionRequest, raw).message


@pytest.mark.parametrize(("field", "value", "told"), [
    ("n", 0, "n must be greater than or equal to 1, got 0."), ("n", True, "n must be a valid integer, got True."),
    ("n", 1.0, "integer"), ("n", "1", "integer"), ("temperature", -0.5, "greater than or equal to 0, got -0.5"),
    ("temperature", 2.5, "less than or equal to 2"), ("temperature", "hot", "a valid number, got 'hot'"),
    ("temperature", False, "a valid number"), ("temperature", 1e-30, "must be 0 or at least 0.0001"),
    ("top_p", 0, "greater than or equal to 0.000001"), ("top_p", 1.01, "less than or equal to 1"),
    ("seed", -1, "greater than or equal to 0"), ("seed", 2**63, "less than 9223372036854775808"),
    ("stop", ["a"] * 5, "a list of at most 4 strings, got a list of 5"), ("stop", "", "strings of 1 to 500"),
    ("stop", [3], "at most 4 strings"), ("stop", "x" * 501, "strings of 1 to 500"), ("max_tokens", 0, "or equal to 1"),
    ("logprobs", 6, "less than or equal to 5"), ("echo", 1, "a valid boolean"), ("stream", "yes", "a valid boolean"),
    ("top_k", -1, "or equal to 0"), ("min_p", 1.5, "or equal to 1"), ("repetition_penalty", 0.0, "or equal to 0.01"),
    ("prompt", None, "prompt must be a string, a list of strings"), ("prompt", [], "got a list of 0"),
    ("prompt", [1, True], "got a list of 2"), ("prompt", ["a", 1], "got a list of 2"), ("prompt", [[]], "token ids"),
    ("prompt", [1.5], "token ids"), ("prompt", {"file": "/etc/passwd"}, "got an object of 1"),
    ("model", "", "at least 1 character"), ("model", 5, "model must be a valid string"),
    ("promt", 1, "unknown field 'promt', did you mean 'prompt'?"), ("zzz" * 1000, 1, "unknown field 'zzz"),
    ("presence_penalty", 0.5, "presence_penalty is not served"), ("presence_penalty", False, "is not served"),
    ("logit_bias", {"5": 1}, "logit_bias is not served"), ("suffix", "end", "suffix is not served"),
    ("user", 5, "user must be text"), ("store", True, "store is not served"),
    ("stream_options", {"include_usage": 1}, "stream_options.include_usage must be a valid boolean"),
    ("stream_options", {"usage": True}, "unknown field 'stream_options.usage'"),
])
def test_wrong_fields_of_a_completion(field: str, value: Any, told: str) -> None:
    refused = refusal(CompletionRequest, {**TEXT, field: value})
    assert told in refused.message
    assert refused.param is not None and refused.param.startswith(field[:100])


@pytest.mark.parametrize(("messages", "place", "told"), [
    ([], "messages", "must not be empty"), ("hi", "messages", "a valid array"), (["hi"], "messages[0]", "an object"),
    ([{"content": "hi"}], "messages[0].role", "must be given"), ([{"role": "user"}], "messages[0].content", "be given"),
    ([{"role": "tool", "content": "x"}], "messages[0].role", "'system', 'developer', 'user' or 'assistant'"),
    ([{"role": "user", "content": None}], "messages[0].content", "a string or a list of text parts"),
    ([{"role": "user", "content": []}], "messages[0].content", "a string or a list of text parts"),
    ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content", "the only ones served"),
    ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "messages[0].content", "the only ones served"),
    ([{"role": "user", "content": "x", "tool_calls": [{}]}], "messages[0].tool_calls", "is not served"),
    ([{"role": "user", "content": "x", "contnt": 1}], "messages[0].contnt", "unknown field"),
    ([5] * 300_000, "messages[0]", "an object"),
])
def test_wrong_messages(messages: Any, place: str, told: str) -> None:
    refused = refusal(ChatRequest, {"model": "m", "messages": messages})
    assert told in refused.message
    assert refused.param == place


@pytest.mark.parametrize(("field", "value"), [
    ("tools", [{"type": "function"}]), ("tool_choice", "required"), ("response_format", {"type": "json_object"}),
    ("functions", [{}]), ("modalities", ["audio"]), ("audio", {}), ("prediction", {}), ("reasoning_effort", "high"),
    ("frequency_penalty", 1), ("web_search_options", {}), ("best_of", 2), ("service_tier", "flex"),
    ("metadata", {"a": "b"}),
])
def test_what_is_not_served_is_refused_by_name(field: str, value: Any) -> None:
    refused = refusal(ChatRequest, {**TALK, field: value})
    assert refused.param == field
    assert refused.code in ("unsupported_parameter", "unknown_parameter")


def test_neutral_values_and_labels_change_nothing() -> None:
    neutral = {
        "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "user": "u1", "tools": [], "store": False,
        "tool_choice": "auto", "parallel_tool_calls": True, "response_format": {"type": "text"}, "functions": [],
        "modalities": ["text"], "metadata": None, "service_tier": "auto", "safety_identifier": "s", "stop": None,
        "seed": None, "n": None, "stream_options": None, "top_logprobs": None, "temperature": None,
    }
    asked = parse(ChatRequest, json.dumps({**TALK, **neutral}).encode())
    assert (asked.choices, asked.stop, asked.seed, asked.include_usage) == (1, (), None, False)


def test_what_is_read() -> None:
    asked = parse(CompletionRequest, json.dumps({
        **TEXT, "prompt": [[1, 2], [3]], "n": 2, "temperature": 1, "stop": ["a", "b"], "seed": 2**63 - 1, "top_k": 5,
        "min_p": 0.1, "repetition_penalty": 1.2, "stream": True, "stream_options": {"include_usage": True},
    }).encode())
    assert asked.prompt == ((1, 2), (3,)) and asked.stop == ("a", "b") and asked.include_usage
    assert (asked.temperature, asked.seed, asked.top_k) == (1.0, 2**63 - 1, 5)
    assert parse(CompletionRequest, b'{"model": "m", "prompt": [7]}').prompt == ((7,),)
    # What OpenAI's client makes of an answer can be sent back as a turn.
    talk = parse(ChatRequest, json.dumps({"model": "m", "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": None, "annotations": None, "audio": None, "tool_calls": None},
        {"role": "user", "content": ""},
    ]}).encode())
    assert [message.content for message in talk.messages] == ["ab", "c", ""]
