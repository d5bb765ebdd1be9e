"""Examples as tokens: what is counted, and what happens to those that are too long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.data import (
    Comparison,
    Demonstration,
    Limits,
    Prompt,
    encode_comparisons,
    encode_demonstrations,
    encode_prompts,
    read_jsonl,
)
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["abc"], 300)  # no pair occurs twice, so a token is a byte
WIDE = Limits(100, 100, 200)


def file(tmp_path: Path, *records: Any) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_each_kind(tmp_path: Path) -> None:
    path = file(tmp_path, {"prompt": "ab", "response": "c", "completions": ["c", "ca"], "ranks": [2, 1]})
    assert list(encode_prompts(read_jsonl(path, Prompt), TOKENIZER, "raw", WIDE)) == [TOKENIZER.encode("ab")]
    (example,) = encode_demonstrations(read_jsonl(path, Demonstration), TOKENIZER, "dialogue", WIDE)
    assert example == TOKENIZER.encode_example("ab", "c", "dialogue")
    (ranked,) = encode_comparisons(read_jsonl(path, Comparison), TOKENIZER, "dialogue", WIDE)
    assert ranked.ranks == (2, 1)
    assert ranked.sequences() == [TOKENIZER.encode_example("ab", text, "dialogue").tokens for text in ("c", "ca")]


LONG = {"prompt": "x" * 9, "response": "y", "completions": ["y", "z"], "ranks": [1, 2]}
SHORT = {"prompt": "x", "response": "y", "completions": ["y", "z"], "ranks": [1, 2]}


@pytest.mark.parametrize(
    ("kind", "encode"),
    [(Prompt, encode_prompts), (Demonstration, encode_demonstrations), (Comparison, encode_comparisons)],
)
def test_a_prompt_longer_than_the_limit(tmp_path: Path, kind: Any, encode: Any) -> None:
    examples = read_jsonl(file(tmp_path, SHORT, LONG, SHORT), kind)
    with pytest.raises(
        DataError, match=r"a.jsonl:2: a prompt must have at most max_prompt_tokens = 8 tokens, got 9; shorten it"
    ):
        encode(examples, TOKENIZER, "raw", Limits(8, 8, 16))
    kept = encode(examples, TOKENIZER, "raw", Limits(8, 8, 16, on_long="filter"))
    assert (len(kept), kept.indices, len(kept.too_long)) == (2, (0, 2), 1)
    assert kept.too_long[0].line == 2
    assert len(encode(examples, TOKENIZER, "raw", Limits(9, 8, 17))) == 3


def test_responses_count_their_end(tmp_path: Path) -> None:
    examples = read_jsonl(file(tmp_path, {"prompt": "xx", "response": "yyy"}), Demonstration)
    assert len(encode_demonstrations(examples, TOKENIZER, "raw", Limits(2, 4, 6))) == 1
    with pytest.raises(DataError, match=r"a response with its end .* max_response_tokens = 3 tokens, got 4"):
        encode_demonstrations(examples, TOKENIZER, "raw", Limits(2, 3, 6))
    with pytest.raises(DataError, match=r"a prompt with its response .* max_tokens = 5 tokens, got 6"):
        encode_demonstrations(examples, TOKENIZER, "raw", Limits(2, 4, 5))


def test_the_longest_completion_decides(tmp_path: Path) -> None:
    examples = read_jsonl(file(tmp_path, {"prompt": "x", "completions": ["y", "yyyy"], "ranks": [1, 1]}), Comparison)
    with pytest.raises(DataError, match="max_response_tokens = 4 tokens, got 5"):
        encode_comparisons(examples, TOKENIZER, "raw", Limits(8, 4, 16))


def test_nothing_left_and_messages_in_the_raw_format(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.jsonl: data: all 2 examples are too long, the first because: .*a.jsonl:1"):
        encode_prompts(read_jsonl(file(tmp_path, LONG, LONG), Prompt), TOKENIZER, "raw", Limits(3, 3, 6, "filter"))
    dialogue = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    with pytest.raises(DataError, match=r"a.jsonl:2: messages: the raw format has no roles"):
        encode_prompts(read_jsonl(file(tmp_path, SHORT, {"prompt": dialogue}), Prompt), TOKENIZER, "raw", WIDE)


def test_limits() -> None:
    # Ouyang et al. 2022, appendix C: 1,024 tokens each for prompt and response, in a context of 2,048.
    assert Limits.of_context(2048, "filter") == Limits(1024, 1024, 2048, "filter")
    with pytest.raises(ConfigError, match="max_prompt_tokens must be at least 1, got 0"):
        Limits(0, 1, 1)
    with pytest.raises(ConfigError, match="on_long must be 'error' or 'filter', got 'cut'"):
        Limits(1, 1, 1, "cut")  # type: ignore[arg-type]
