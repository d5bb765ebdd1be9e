"""Few-shot instructions become demonstrations (Ouyang et al. 2022, section 3.2).

An instruction with K pairs of query and response gives K demonstrations, each with the other K - 1 pairs in context.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from instructgpt_fast.data.examples import ExampleKind
from instructgpt_fast.errors import DataError
from instructgpt_fast.tokenizer import PromptFormat
from instructgpt_fast.tokenizer.few_shot import FewShot


@dataclass(frozen=True)
class Instruction(ExampleKind):
    """{"instruction", "pairs"}: K >= 1 pairs [query, response], or objects {"query", "response"}."""

    instruction: str
    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build it from a JSON object; raises DataError that names the field and the rule it breaks."""
        instruction, pairs = record.get("instruction"), record.get("pairs")
        if not isinstance(instruction, str) or not instruction:
            raise DataError("few_shot: 'instruction' must be text that is not empty")
        if not isinstance(pairs, list) or not pairs:
            raise DataError("few_shot: 'pairs' must be a list of at least one pair of query and response")
        return cls(instruction, tuple(_pair(pair, place) for place, pair in enumerate(pairs)))

    def expanded(self, prompt_format: PromptFormat) -> list[dict[str, Any]]:
        """Return K objects {"prompt", "response"}, in the order of the pairs.

        The prompt is what `generate(..., examples=)` makes of the other pairs: one text for the raw format, messages
        for the dialogue format.
        """
        found = []
        for place, (query, response) in enumerate(self.pairs):
            others = self.pairs[:place] + self.pairs[place + 1 :]
            prompt = FewShot(others, instruction=self.instruction).prompt(query, prompt_format)
            if not isinstance(prompt, str):
                shown: Any = [{"role": message.role, "content": message.content} for message in prompt]
            else:
                shown = prompt
            found.append({"prompt": shown, "response": response})
        return found


def expand(record: Mapping[str, Any], prompt_format: PromptFormat) -> list[bytes]:
    """The lines of JSON that a few-shot record gives; its other fields go to each of them."""
    others = {name: value for name, value in record.items() if name not in ("instruction", "pairs")}
    found = Instruction.from_record(record).expanded(prompt_format)
    return [json.dumps({**example, **others}, ensure_ascii=False).encode() for example in found]


def _pair(value: Any, place: int) -> tuple[str, str]:
    if isinstance(value, Mapping):
        value = [value.get("query"), value.get("response")]
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(text, str) and text for text in value):
        raise DataError(f"few_shot: a pair must be query and response, two texts not empty; pair {place} is not")
    return value[0], value[1]
