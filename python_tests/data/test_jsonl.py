"""Every kind of example from JSON lines, and the place and reason of every line that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.data import Comparison, Demonstration, Prompt, Text, read_jsonl
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.tokenizer import Message

HELLO = [{"role": "user", "content": "Hello"}]
ANSWERED = [*HELLO, {"role": "assistant", "content": "Hi."}]
HELLO_MESSAGES = (Message("user", "Hello"),)


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("record", "example"),
    [
        ({"text": "a", "id": 7}, Text("a")),
        ({"prompt": "Q"}, Prompt("Q")),
        ({"prompt": HELLO}, Prompt(HELLO_MESSAGES)),
        ({"messages": HELLO}, Prompt(HELLO_MESSAGES)),
        ({"messages": ANSWERED}, Prompt(HELLO_MESSAGES)),
        ({"prompt": "Q", "response": "A"}, Prompt("Q")),
        ({"prompt": "Q", "response": "A"}, Demonstration("Q", "A")),
        ({"prompt": "Q", "completion": "A"}, Demonstration("Q", "A")),
        ({"prompt": HELLO, "completion": ANSWERED[1:]}, Demonstration(HELLO_MESSAGES, "Hi.")),
        ({"messages": ANSWERED}, Demonstration(HELLO_MESSAGES, "Hi.")),
        ({"prompt": "Q", "completions": ["a", "b", "c"], "ranks": [2, 1, 2]}, Comparison("Q", tuple("abc"), (2, 1, 2))),
        ({"prompt": "Q", "chosen": "a", "rejected": "b"}, Comparison("Q", ("a", "b"), (1, 2))),
        (
            {"chosen": ANSWERED, "rejected": [*HELLO, {"role": "assistant", "content": "No."}]},
            Comparison(HELLO_MESSAGES, ("Hi.", "No."), (1, 2)),
        ),
        (
            {"prompt": HELLO, "chosen": ANSWERED[1:], "rejected": [{"role": "assistant", "content": "No."}]},
            Comparison(HELLO_MESSAGES, ("Hi.", "No."), (1, 2)),
        ),
    ],
)
def test_kinds(tmp_path: Path, record: Any, example: Any) -> None:
    assert list(read_jsonl(write(tmp_path / "a.jsonl", record), type(example))) == [example]


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        (Text, [1], "text: a record must be an object, got a list"),
        (Text, {"txt": "a"}, "text: a record needs 'text', got 'txt'"),
        (Text, {}, "text: a record needs 'text', got no fields"),
        (Text, {"text": 3}, "text: 'text' must be text, got int"),
        (Text, {"text": None}, "text: 'text' must be text, got null"),
        (Text, {"text": ""}, "text: 'text' must not be empty"),
        (Prompt, {"prompt": ""}, "prompt: 'prompt' must not be empty"),
        (Prompt, {"prompt": ANSWERED}, "prompt: a prompt must end with the user's message, got the assistant's"),
        (Prompt, {"prompt": 3}, "messages: must be a list of at least one message, got int"),
        (Demonstration, {"prompt": "Q"}, "a record needs one of 'response' or 'completion', got 'prompt'"),
        (Demonstration, {"prompt": "Q", "response": "a", "completion": "b"}, "needs one of 'response' or 'completion'"),
        (Demonstration, {"response": "A"}, "demonstration: a record needs 'prompt', got 'response'"),
        (Demonstration, {"prompt": "Q", "response": ""}, "demonstration: 'response' must not be empty"),
        (Demonstration, {"prompt": "Q", "response": HELLO}, "'response' must be text or a list of one assistant"),
        (Demonstration, {"messages": HELLO}, "demonstration: 'messages' must end with the assistant's, got the user's"),
        (Demonstration, {"messages": [{"role": "bot", "content": "a"}]}, "message 0 must be one of system, user"),
        (Comparison, {"prompt": "Q", "completions": ["a"], "ranks": [1]}, "list of at least 2 responses, got 1"),
        (Comparison, {"prompt": "Q", "completions": "ab", "ranks": [1]}, "list of at least 2 responses, got text"),
        (
            Comparison, {"prompt": "Q", "completions": ["a", "b", "c", "d"], "ranks": [1, 2, 3]},
            "comparison: 'ranks' must have one rank for each of the 4 completions, got 3",
        ),
        (Comparison, {"prompt": "Q", "completions": ["a", "b"]}, "comparison: a record needs 'ranks', got"),
        (Comparison, {"prompt": "Q", "completions": ["a", "b"], "ranks": [0, 1]}, r"whole number from 1 .*\[0, 1\]"),
        (Comparison, {"prompt": "Q", "completions": ["a", "b"], "ranks": [1, 1.5]}, r"number from 1 .*\[1, 1.5\]"),
        (Comparison, {"prompt": "Q", "completions": ["a", "b"], "ranks": [True, 1]}, "whole number from 1"),
        (Comparison, {"prompt": "Q", "completions": ["a", 3], "ranks": [1, 2]}, "completion 1 must be text or a list"),
        (Comparison, {"prompt": "Q", "chosen": "a"}, "comparison: a record needs 'rejected', got 'prompt', 'chosen'"),
        (Comparison, {"chosen": "a", "rejected": "b"}, "as text need 'prompt' beside them"),
        (Comparison, {"chosen": ANSWERED, "rejected": HELLO}, "one dialogue up to the assistant's last message"),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_records_that_break_a_rule(tmp_path: Path, kind: Any, record: Any, message: str, skip: bool) -> None:
    good = {
        "text": "a", "prompt": "Q", "response": "A", "completions": ["a", "b"], "ranks": [1, 2],
    }
    path = write(tmp_path / "a.jsonl", good, record, good)
    if skip:
        found = read_jsonl(path, kind, on_bad_line="skip")
        assert (len(found), found.lines, len(found.skipped)) == (2, (1, 3), 1)
        assert str(found.skipped[0]).startswith(f"{path}:2: ")
    else:
        with pytest.raises(DataError, match=rf"a\.jsonl:2: .*{message}") as caught:
            read_jsonl(path, kind)
        assert (caught.value.path, caught.value.line) == (str(path), 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', r"a line must be one JSON object in UTF-8, got Expecting ',' delimiter at column 13"),
        (b"not json", "got Expecting value at column 1"),
        (b'{"text": "a"} {"text": "b"}', "got Extra data at column 15"),
        (b'{"text": "a\xff"}', "its byte 11 is not UTF-8"),
        (b'{"text": "\\ud83d"}', r"got an escape for half a character \(a lone surrogate\)"),
        (b"[" * 100_000, "got one nested too deeply"),
        (b'{"text": "t", "n": ' + b"9" * 5000 + b"}", "got a whole number of more digits"),
        (b'{"text": "t", "x": {"a": 1, "b": 2, "a": 3}}', "must name a field once, got 'a' twice"),
    ],
)
def test_lines_that_are_not_json(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "first"}\n\n' + line + b"\n")
    with pytest.raises(DataError, match=rf"a\.jsonl:3: read_jsonl: .*{message}"):
        read_jsonl(path, Text)
    assert list(read_jsonl(path, Text, on_bad_line="skip")) == [Text("first")]


def test_blank_lines_and_a_byte_order_mark_are_no_lines_of_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "\\ud83d\\ude00"}\r\n  \r\n{"text": "b"}')
    found = read_jsonl(path, Text)
    assert list(found) == [Text("\U0001f600"), Text("b")]
    assert found.lines == (1, 3)
    assert str(found.error(1, "bad")) == f"{path}:3: bad"


def test_files_without_an_example(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(DataError, match=r"a.jsonl: read_jsonl: cannot read the file \(No such file"):
        read_jsonl(path, Text)
    path.write_bytes(b"\n \n")
    with pytest.raises(DataError, match=r"a.jsonl: read_jsonl: the file must hold at least one text, got none"):
        read_jsonl(path, Text)
    path.write_bytes(b"x\ny\n")
    with pytest.raises(DataError, match=r"got 2 lines that cannot be read, the first because: .*a.jsonl:1: "):
        read_jsonl(path, Text, on_bad_line="skip")
    with pytest.raises(ConfigError, match="on_bad_line must be 'error' or 'skip', got 'ignore'"):
        read_jsonl(path, Text, on_bad_line="ignore")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot read the file"):
        read_jsonl(tmp_path, Text)
