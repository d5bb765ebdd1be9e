"""Examples as tokens, within the lengths that a model can read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from instructgpt_fast.data import Comparison, Demonstration, Examples, OnBadLine, read_jsonl
from instructgpt_fast.errors import DataError
from instructgpt_fast.evaluate.reward_accuracy import RankedAnswers
from instructgpt_fast.tokenizer import Encoded, PromptFormat, Tokenizer

Say = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """Longest prompt and longest example in tokens, and what happens to what is longer or cannot be read."""

    max_length: int
    max_prompt_length: int | None = None
    on_overlong: Literal["error", "skip"] = "error"
    on_bad_line: OnBadLine = "error"


def encode_demonstrations(
    path: str, tokenizer: Tokenizer, prompt_format: PromptFormat, limits: Limits, say: Say
) -> list[Encoded]:
    """Read demonstrations as tokens with their loss_mask, True on the response and its EOS.

    say: told how many were left out. Raises DataError with file and line; DataError when none is left.
    """
    examples = read_jsonl(path, Demonstration, on_bad_line=limits.on_bad_line)
    encoded: list[Encoded] = []
    overlong = 0
    for index, example in enumerate(examples):
        found = tokenizer.encode_example(example.prompt, example.response, prompt_format)
        if _fits(examples, index, found.loss_mask.index(True), len(found.tokens), limits):
            encoded.append(found)
        else:
            overlong += 1
    _tell(say, examples, overlong=overlong)
    if not encoded:
        raise DataError(f"demonstrations: at least one must fit {limits.max_length} tokens, got none of {overlong}", path)
    return encoded


def encode_comparisons(
    path: str, tokenizer: Tokenizer, prompt_format: PromptFormat, limits: Limits, say: Say
) -> list[RankedAnswers]:
    """Read comparisons as token sequences with their ranks; a prompt whose answers are all tied is left out.

    say: told how many were left out. Raises DataError with file and line; DataError when none is left.
    """
    examples = read_jsonl(path, Comparison, on_bad_line=limits.on_bad_line)
    ranked: list[RankedAnswers] = []
    overlong = tied = 0
    for index, example in enumerate(examples):
        if len(set(example.ranks)) == 1:
            tied += 1
            continue
        answers = [tokenizer.encode_example(example.prompt, text, prompt_format) for text in example.completions]
        longest = max(len(answer.tokens) for answer in answers)
        if _fits(examples, index, answers[0].loss_mask.index(True), longest, limits):
            ranked.append(RankedAnswers([answer.tokens for answer in answers], list(example.ranks)))
        else:
            overlong += 1
    _tell(say, examples, overlong=overlong, tied=tied)
    if not ranked:
        raise DataError(
            f"comparisons: at least one prompt must have answers of different rank within {limits.max_length} tokens, "
            f"got none ({tied} tied, {overlong} too long)", path,
        )
    return ranked


def _fits(examples: Examples, index: int, prompt_length: int, length: int, limits: Limits) -> bool:
    too_long = None
    if limits.max_prompt_length is not None and prompt_length > limits.max_prompt_length:
        too_long = f"the prompt must have at most {limits.max_prompt_length} tokens, got {prompt_length}"
    elif length > limits.max_length:
        too_long = f"prompt and response must have at most {limits.max_length} tokens, got {length}"
    if too_long is None:
        return True
    if limits.on_overlong == "skip":
        return False
    raise examples.error(index, f"{too_long}; shorten it, or leave such examples out with on_overlong='skip'")


def _tell(say: Say, examples: Examples, *, overlong: int, tied: int = 0) -> None:
    parts = [
        (len(examples.skipped), "lines that cannot be read"), (overlong, "too long"), (tied, "with all answers tied"),
    ]
    left_out = ", ".join(f"{count} {reason}" for count, reason in parts if count)
    if left_out:
        say(f"{examples.path}: left out {left_out}")
