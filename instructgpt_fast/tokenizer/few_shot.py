"""Few-shot prompts: solved examples before the question (Brown et al. 2020, arXiv:2005.14165, section 2).

Not covered: choosing the examples, and making them fit the context; a prompt that does not fit is refused when it is
generated from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instructgpt_fast.errors import DataError
from instructgpt_fast.tokenizer.dialogue import Message, PromptFormat, as_messages, only_text

__all__ = ["Examples", "FewShot", "as_few_shot"]


@dataclass(frozen=True)
class FewShot:
    """K pairs of a question and its answer, as the labelers' few-shot prompts have (Ouyang et al. 2022, section 3.2).

    pairs: (x, y) texts, in the order in which they are shown. instruction: what the pairs are examples of, said first.
    between: stands between x and y. separator: follows the instruction and each y.

    A model of dialogues reads each pair as a turn of the user and one of the assistant, before the prompt's own turns,
    and the instruction as the system message. A model of plain text reads one text,

        instruction separator x1 between y1 separator ... xK between yK separator prompt between

    without any further character. What begins an answer belongs to the answers (y = " Paris") and not to the end of
    `between`: a byte-level tokenizer joins a space to the word after it, and would not find it so in the examples.
    Raises DataError for a pair that is not two texts.
    """

    pairs: Sequence[tuple[str, str]]
    instruction: str | None = None
    between: str = "\n"
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        for place, pair in enumerate(self.pairs):
            whole = isinstance(pair, tuple | list) and len(pair) == 2
            if not whole or not all(isinstance(text, str) for text in pair):
                raise DataError(f"examples: an example must be a pair of texts (x, y), got {pair!r} as example {place}")

    def prompt(
        self, prompt: str | Sequence[Message] | Sequence[Mapping[str, str]], prompt_format: PromptFormat
    ) -> str | tuple[Message, ...]:
        """Return the prompt with the examples before it, for a model of this format: what `encode_prompt` takes.

        Raises DataError for messages out of order, more than one user message in the raw format, and two system
        messages, the instruction being one of them.
        """
        if prompt_format == "raw":
            opening = "" if self.instruction is None else self.instruction + self.separator
            shown = "".join(f"{x}{self.between}{y}{self.separator}" for x, y in self.pairs)
            return f"{opening}{shown}{only_text(prompt)}{self.between}"
        turns = (Message("user", prompt),) if isinstance(prompt, str) else as_messages(prompt)
        opening_turns, turns = (turns[:1], turns[1:]) if turns[0].role == "system" else ((), turns)
        if self.instruction is not None:
            if opening_turns:
                raise DataError(
                    "examples: a dialogue has one system message, got one in the prompt beside the instruction "
                    f"{self.instruction!r}; leave one of them out"
                )
            opening_turns = (Message("system", self.instruction),)
        pairs = (m for x, y in self.pairs for m in (Message("user", x), Message("assistant", y)))
        return (*opening_turns, *pairs, *turns)

    def stop(self, prompt_format: PromptFormat) -> tuple[str, ...]:
        """Return where an answer ends unless the caller says so: plain text goes on with another example after it."""
        return (self.separator,) if prompt_format == "raw" and self.pairs and self.separator else ()


Examples = Sequence[tuple[str, str]] | FewShot


def as_few_shot(examples: Any) -> FewShot:
    """Take pairs as examples without instruction and in the usual form. Raises DataError for anything else."""
    if isinstance(examples, FewShot):
        return examples
    if not isinstance(examples, Sequence) or isinstance(examples, str):
        raise DataError(f"examples: must be a list of pairs (x, y) or a FewShot, got {type(examples).__name__}")
    return FewShot(tuple(examples))
