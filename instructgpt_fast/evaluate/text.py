"""Text to evaluate on, as one stream of tokens."""

from __future__ import annotations

from typing import Any

from instructgpt_fast.data import TokenShards, documents, is_shard_folder
from instructgpt_fast.data.jsonl import OnBadLine
from instructgpt_fast.evaluate.perplexity import joined
from instructgpt_fast.tokenizer import Tokenizer


def text_stream(path: str, tokenizer: Tokenizer, on_bad_line: OnBadLine = "error") -> Any:
    """Tokens of a text file, a folder of them, or token shards of this tokenizer. Raises DataError."""
    if is_shard_folder(path):
        return TokenShards(path, tokenizer)
    return joined(tokenizer, list(documents(path, on_bad_line=on_bad_line)))
