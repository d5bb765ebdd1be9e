"""Examples as tokens, held to the lengths that a model can take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar, overload

from instructgpt_fast.data.examples import Comparison, Demonstration, Example, Prompt
from instructgpt_fast.data.jsonl import Examples
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.tokenizer import Encoded, PromptFormat, Tokenizer

__all__ = [
    "EncodedComparison",
    "Fitting",
    "Limits",
    "encode_comparisons",
    "encode_demonstrations",
    "encode_prompts",
]

Item = TypeVar("Item")
OnLong = Literal["error", "filter"]


@dataclass(frozen=True)
class Limits:
    """The most tokens of a prompt, of a response with its EOS, and of both together.

    on_long: "error" stops at the first example that is longer and names its place; "filter" leaves it out and keeps
    count, as the paper does with prompts above 1,024 tokens (Ouyang et al. 2022, appendix C).
    """

    max_prompt_tokens: int
    max_response_tokens: int
    max_tokens: int
    on_long: OnLong = "error"

    def __post_init__(self) -> None:
        """Refuse limits below 1 and a policy that does not exist."""
        for name in ("max_prompt_tokens", "max_response_tokens", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Limits: {name} must be at least 1, got {getattr(self, name)}")
        if self.on_long not in ("error", "filter"):
            raise ConfigError(f"Limits: on_long must be 'error' or 'filter', got {self.on_long!r}")

    @classmethod
    def of_context(cls, n_positions: int, on_long: OnLong = "error") -> Limits:
        """Half of the context for the prompt and half for the response: 1,024 each of 2,048, as in the paper."""
        return cls(max(1, n_positions // 2), max(1, n_positions - n_positions // 2), n_positions, on_long)

    def broken_by(self, prompt: int, response: int) -> str | None:
        """Say which limit lengths in tokens go beyond, or None when they keep all."""
        remedy = "shorten it, raise the limit, or filter long examples out"
        for what, length, name in (
            ("a prompt", prompt, "max_prompt_tokens"),
            ("a response with its end", response, "max_response_tokens"),
            ("a prompt with its response", prompt + response, "max_tokens"),
        ):
            limit = getattr(self, name)
            if length > limit:
                return f"{what} must have at most {name} = {limit} tokens, got {length}; {remedy}"
        return None


@dataclass(frozen=True)
class Fitting(Sequence[Item], Generic[Item]):
    """What fits, in order; `indices` are its places among the examples, `too_long` says why others were left out."""

    items: tuple[Item, ...]
    indices: tuple[int, ...]
    too_long: tuple[DataError, ...]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return self.items[index]


class EncodedComparison(NamedTuple):
    """A prompt, its K responses with EOS, and their ranks (1 = best, equal = tie)."""

    prompt: list[int]
    responses: list[list[int]]
    ranks: tuple[int, ...]

    def sequences(self) -> list[list[int]]:
        """Return the prompt followed by each response."""
        return [self.prompt + response for response in self.responses]


def encode_prompts(
    examples: Examples[Prompt], tokenizer: Tokenizer, prompt_format: PromptFormat, limits: Limits
) -> Fitting[list[int]]:
    """Encode prompts; only max_prompt_tokens applies.

    Raises DataError with file and line for a prompt that is too long or cannot be encoded, and when none is left.
    """

    def encode(example: Prompt) -> tuple[list[int], int, int]:
        tokens = tokenizer.encode_prompt(example.prompt, prompt_format)
        return tokens, len(tokens), 0

    return _fitting(examples, encode, limits)


def encode_demonstrations(
    examples: Examples[Demonstration], tokenizer: Tokenizer, prompt_format: PromptFormat, limits: Limits
) -> Fitting[Encoded]:
    """Encode prompts with their responses and EOS; the loss_mask is True on response and EOS. Errors as above."""

    def encode(example: Demonstration) -> tuple[Encoded, int, int]:
        encoded = tokenizer.encode_example(example.prompt, example.response, prompt_format)
        response = sum(encoded.loss_mask)
        return encoded, len(encoded.tokens) - response, response

    return _fitting(examples, encode, limits)


def encode_comparisons(
    examples: Examples[Comparison], tokenizer: Tokenizer, prompt_format: PromptFormat, limits: Limits
) -> Fitting[EncodedComparison]:
    """Encode prompts with their ranked completions; the longest completion decides whether it fits. Errors as above."""

    def encode(example: Comparison) -> tuple[EncodedComparison, int, int]:
        prompt = tokenizer.encode_prompt(example.prompt, prompt_format)
        responses = [[*tokens, tokenizer.eos_id] for tokens in tokenizer.encode_batch(example.completions)]
        return EncodedComparison(prompt, responses, example.ranks), len(prompt), max(map(len, responses))

    return _fitting(examples, encode, limits)


def _fitting(
    examples: Examples[Example], encode: Callable[[Example], tuple[Item, int, int]], limits: Limits
) -> Fitting[Item]:
    items: list[Item] = []
    indices: list[int] = []
    too_long: list[DataError] = []
    for index, example in enumerate(examples.items):
        try:
            item, prompt, response = encode(example)
        except DataError as error:
            raise examples.error(index, error.message) from error
        broken = limits.broken_by(prompt, response)
        if broken is None:
            items.append(item)
            indices.append(index)
        elif limits.on_long == "error":
            raise examples.error(index, broken)
        else:
            too_long.append(examples.error(index, broken))
    if not items:
        raise DataError(
            f"data: all {len(too_long)} examples are too long, the first because: {too_long[0]}", examples.path
        )
    return Fitting(tuple(items), tuple(indices), tuple(too_long))
