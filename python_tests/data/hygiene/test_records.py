"""Kinds are told apart, texts are found and changed in place, few-shot instructions give K demonstrations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from instructgpt_fast.data import Demonstration
from instructgpt_fast.data.examples import parse
from instructgpt_fast.data.hygiene.few_shot import expand
from instructgpt_fast.data.hygiene.first_pass import keys_of
from instructgpt_fast.data.hygiene.last_pass import split_of
from instructgpt_fast.data.hygiene.options import PrepareConfig
from instructgpt_fast.data.hygiene.records import Record, detect_kind, map_texts, normalized, read_record, texts_of
from instructgpt_fast.errors import DataError
from instructgpt_fast.tokenizer import Message

USER = {"role": "user", "content": "u"}
ASSISTANT = {"role": "assistant", "content": "a"}
SHOTS = {"instruction": "Translate.",
         "pairs": [["sea", "mer"], {"query": "sky", "response": "ciel"}, ["sun", "soleil"]]}

KINDS: list[tuple[Any, str | None, list[str]]] = [
    ({"text": "t", "title": "x"}, "text", ["t"]),
    ({"prompt": "p"}, "prompt", ["p"]),
    ({"messages": [USER]}, "prompt", ["u"]),
    ({"messages": [USER, ASSISTANT]}, "demonstration", ["u", "a"]),
    ({"prompt": "p", "response": "r"}, "demonstration", ["p", "r"]),
    ({"prompt": [USER], "completion": [ASSISTANT]}, "demonstration", ["u", "a"]),
    ({"prompt": "p", "completions": ["a", "b"], "ranks": [1, 2]}, "comparison", ["p", "a", "b"]),
    ({"chosen": [USER, ASSISTANT], "rejected": [USER, {**ASSISTANT, "content": "z"}]}, "comparison",
     ["u", "a", "u", "z"]),
    (SHOTS, "few_shot", ["Translate.", "sea", "mer", "sky", "ciel", "sun", "soleil"]),
    ({"name": "n"}, None, []),
    (["prompt"], None, []),
]


@pytest.mark.parametrize("record, kind, texts", KINDS)
def test_kind_and_texts(record: Any, kind: Any, texts: list[str]) -> None:
    assert detect_kind(record) == kind
    if kind is not None:
        assert texts_of(record, kind) == texts
        assert read_record(record, kind, "user").whole == "\n".join(texts)
        changed = map_texts({**record, "note": "n"}, kind, str.upper)
        assert texts_of(changed, kind) == [text.upper() for text in texts]
        assert changed["note"] == "n", "what no stage learns from stays"
        assert "USER" not in json.dumps(changed), "roles stay"


@pytest.mark.parametrize("user, expected", [("ann", "ann"), (7, "7"), (None, None), ("", None), (" ", None)])
def test_user(user: Any, expected: str | None) -> None:
    assert read_record({"prompt": "p", "by": user}, "prompt", "by").user == expected


def test_a_user_that_is_neither_text_nor_number() -> None:
    with pytest.raises(DataError, match="'user' must be text or a whole number, got list"):
        read_record({"prompt": "p", "user": ["a"]}, "prompt", "user")


def test_few_shot_in_the_raw_format() -> None:
    lines = [json.loads(line) for line in expand({**SHOTS, "user": "ann"}, "raw")]
    assert lines == [
        {"prompt": "Translate.\n\nsky\nciel\n\nsun\nsoleil\n\nsea\n", "response": "mer", "user": "ann"},
        {"prompt": "Translate.\n\nsea\nmer\n\nsun\nsoleil\n\nsky\n", "response": "ciel", "user": "ann"},
        {"prompt": "Translate.\n\nsea\nmer\n\nsky\nciel\n\nsun\n", "response": "soleil", "user": "ann"},
    ]


def test_few_shot_in_the_dialogue_format_is_read_by_fine_tuning() -> None:
    first, *others = [parse(Demonstration, json.loads(line)) for line in expand(SHOTS, "dialogue")]
    assert first.prompt == (
        Message("system", "Translate."), Message("user", "sky"), Message("assistant", "ciel"), Message("user", "sun"),
        Message("assistant", "soleil"), Message("user", "sea"),
    )
    assert first.response == "mer"
    assert [other.response for other in others] == ["ciel", "soleil"]


def test_one_pair_has_no_context() -> None:
    only, = expand({"instruction": "Say.", "pairs": [["q", "r"]]}, "raw")
    assert json.loads(only) == {"prompt": "Say.\n\nq\n", "response": "r"}


@pytest.mark.parametrize("record, message", [
    ({"pairs": [["q", "r"]]}, "'instruction' must be text"),
    ({"instruction": "i", "pairs": []}, "at least one pair"),
    ({"instruction": "i", "pairs": [["q", "r"], ["q"]]}, "pair 1 is not"),
    ({"instruction": "i", "pairs": [["q", ""]]}, "pair 0 is not"),
    ({"instruction": "i", "pairs": [{"query": "q", "answer": "r"}]}, "pair 0 is not"),
])
def test_wrong_few_shot_records(record: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_record(record, "few_shot", "user")


def test_normalized() -> None:
    assert normalized("  e\u0301 \n\t Polish\u00a0x ") == "\u00e9 Polish x"


@pytest.mark.parametrize("length, has", [(127, False), (128, True), (129, True)])
def test_a_text_as_long_as_the_prefix_has_one(length: int, has: bool) -> None:
    options = PrepareConfig(data=("in.jsonl",), output_dir="out", near_duplicates=None)
    text = "x" * length
    (_, prefix, *_), _ = keys_of(Record(text, text, None, 1), options)
    assert (prefix != (0, 0)) is has


@pytest.mark.parametrize("test, valid, draw, split", [
    (0.0, 0.0, 0.0, "train"), (0.0, 0.1, 0.0, "valid"), (0.2, 0.1, 0.19, "test"), (0.2, 0.1, 0.2, "valid"),
    (0.25, 0.25, 0.5, "train"),
])
def test_a_split_holds_its_beginning_and_not_its_end(test: float, valid: float, draw: float, split: str) -> None:
    options = PrepareConfig(data=("in.jsonl",), output_dir="out", test_fraction=test, valid_fraction=valid)
    assert split_of(draw, options) == split
