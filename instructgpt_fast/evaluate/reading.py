"""Files of examples read, encoded and counted in one go; what is left out is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from instructgpt_fast.data import (
    Comparison,
    Demonstration,
    Examples,
    Fitting,
    Limits,
    OnBadLine,
    TokenShards,
    documents,
    encode_comparisons,
    encode_demonstrations,
    is_shard_folder,
    read_jsonl,
)
from instructgpt_fast.errors import DataError
from instructgpt_fast.evaluate.perplexity import joined
from instructgpt_fast.evaluate.reward_accuracy import RankedAnswers
from instructgpt_fast.tokenizer import Encoded, PromptFormat, Tokenizer

Say = Callable[[str], None]


def read_demonstrations(
    path: str, tokenizer: Tokenizer, prompt_format: PromptFormat, limits: Limits, on_bad_line: OnBadLine, say: Say
) -> Sequence[Encoded]:
    """Demonstrations as tokens with their loss_mask, True on the response and its EOS.

    say: told how many were left out. Raises DataError with file and line, and when none is left.
    """
    examples = read_jsonl(path, Demonstration, on_bad_line=on_bad_line)
    encoded = encode_demonstrations(examples, tokenizer, prompt_format, limits)
    _tell(say, examples, encoded)
    return encoded


def read_comparisons(
    path: str, tokenizer: Tokenizer, prompt_format: PromptFormat, limits: Limits, on_bad_line: OnBadLine, say: Say
) -> list[RankedAnswers]:
    """Comparisons as token sequences with their ranks; a prompt whose answers are all tied has no pair and is left out.

    say: told how many were left out. Raises DataError with file and line, and when none is left.
    """
    examples = read_jsonl(path, Comparison, on_bad_line=on_bad_line)
    encoded = encode_comparisons(examples, tokenizer, prompt_format, limits)
    ranked = [RankedAnswers(item.sequences(), list(item.ranks)) for item in encoded if len(set(item.ranks)) > 1]
    _tell(say, examples, encoded, tied=len(encoded) - len(ranked))
    if not ranked:
        raise DataError(
            f"comparisons: a prompt must have two answers of different rank, got {len(encoded)} prompts with ties only",
            path,
        )
    return ranked


def read_stream(path: str, tokenizer: Tokenizer, on_bad_line: OnBadLine = "error") -> Any:
    """Tokens of a text file, a folder of them, or token shards of this tokenizer. Raises DataError."""
    if is_shard_folder(path):
        return TokenShards(path, tokenizer)
    return joined(tokenizer, list(documents(path, on_bad_line=on_bad_line)))


def _tell(say: Say, examples: Examples, encoded: Fitting, *, tied: int = 0) -> None:
    parts = (
        (len(examples.skipped), "lines that cannot be read"), (len(encoded.too_long), "too long"),
        (tied, "with all answers tied"),
    )
    left_out = ", ".join(f"{count} {reason}" for count, reason in parts if count)
    if left_out:
        say(f"{examples.path}: left out {left_out}")
