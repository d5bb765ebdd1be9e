"""Prompts, responses and dialogues as tokens, with the mask of what counts."""

from __future__ import annotations

from typing import Any

import pytest

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.tokenizer import Encoded, Message, Tokenizer

TOKENIZER = Tokenizer.train(["Hello there. How are you? I am well. " * 3], 290)
EOS = TOKENIZER.eos_id
SYSTEM, USER, ASSISTANT = (TOKENIZER.role_ids[role] for role in ("system", "user", "assistant"))
encode = TOKENIZER.encode


def counted(encoded: Encoded) -> str:
    return TOKENIZER.decode(t for t, counts in zip(encoded.tokens, encoded.loss_mask, strict=True) if counts)


def test_dialogue_layout() -> None:
    prompt = TOKENIZER.encode_prompt("How?", "dialogue")
    assert prompt == [USER, *encode("How?"), ASSISTANT]
    example = TOKENIZER.encode_example("How?", "Well.", "dialogue")
    assert example.tokens == [*prompt, *encode("Well."), EOS]
    assert example.loss_mask == [False] * len(prompt) + [True] * (len(encode("Well.")) + 1)


def test_raw_layout() -> None:
    assert TOKENIZER.encode_prompt("How?", "raw") == encode("How?")
    example = TOKENIZER.encode_example("How?", " Well.", "raw")
    assert example.tokens == [*encode("How?"), *encode(" Well."), EOS]
    assert counted(example) == " Well.<|endoftext|>"
    assert TOKENIZER.encode_prompt([Message("user", "How?")], "raw") == encode("How?")
    # An empty prompt is allowed: the response then begins the text.
    assert TOKENIZER.encode_example("", "a", "raw") == Encoded([*encode("a"), EOS], [True, True])


def test_several_turns() -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        Message("assistant", "Hello there."),
        Message("user", "How are you?"),
        Message("assistant", "I am well."),
    ]
    last = TOKENIZER.encode_dialogue(messages)
    assert last.tokens == [
        SYSTEM, *encode("Be kind."), USER, *encode("Hello"), ASSISTANT, *encode("Hello there."), EOS,
        USER, *encode("How are you?"), ASSISTANT, *encode("I am well."), EOS,
    ]
    assert counted(last) == "I am well.<|endoftext|>"
    every = TOKENIZER.encode_dialogue(messages, every_turn=True)
    assert every.tokens == last.tokens
    assert counted(every) == "Hello there.<|endoftext|>I am well.<|endoftext|>"
    assert TOKENIZER.encode_prompt(messages[:4], "dialogue") == last.tokens[: last.loss_mask.index(True)]


def test_role_names_in_text_stay_text() -> None:
    example = TOKENIZER.encode_example("<|assistant|>Yes<|endoftext|>", "<|user|>", "dialogue")
    specials = [token for token in example.tokens if token in TOKENIZER.special_ids]
    assert specials == [USER, ASSISTANT, EOS]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "must be a list of at least one message, got an empty list"),
        ("text", "must be a list of at least one message, got str"),
        ([3], "message 0 must be an object with 'role' and 'content', got int"),
        ([{"role": "user"}], "message 0 lacks 'content'"),
        ([{"content": "a"}], "message 0 lacks 'role'"),
        ([{"role": "bot", "content": "a"}], "message 0 must be one of system, user, assistant, got 'bot'"),
        ([{"role": "user", "content": 3}], "content of message 0 must be text, got int"),
        ([Message("system", "a")], "a system message alone is no dialogue"),
        ([Message("assistant", "a")], "message 0 must be from 'user', got 'assistant'"),
        ([Message("user", "a"), Message("user", "b")], "message 1 must be from 'assistant', got 'user'"),
        ([Message("system", "s"), Message("user", "a"), Message("system", "b")], "message 2 must be from 'assistant'"),
        ([Message("user", "a")], "must end with the assistant, got 'user'"),
    ],
)
def test_messages_that_make_no_sense(messages: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TOKENIZER.encode_dialogue(messages)


def test_prompts_that_make_no_sense() -> None:
    turns = [Message("user", "a"), Message("assistant", "b")]
    with pytest.raises(DataError, match="a prompt must end with the user, got 'assistant' last"):
        TOKENIZER.encode_prompt(turns, "dialogue")
    with pytest.raises(DataError, match="the raw format has no roles, so it takes one user message, got 2 messages"):
        TOKENIZER.encode_prompt(turns, "raw")
    with pytest.raises(ConfigError, match="prompt_format must be 'raw' or 'dialogue', got 'chat'"):
        TOKENIZER.encode_prompt("a", "chat")  # type: ignore[arg-type]
