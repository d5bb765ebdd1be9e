"""What the generation benchmarks ask for: requests with lengths drawn from a seed, the same for every contender."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.stages.work import Size

SMALL = Size(8192)
WIDE_VOCABULARY = Size(50257)
GPT2 = Size(50257, layers=12, width=768, heads=12, positions=1024)
SIZE_NAMES = {
    SMALL: "4 x 256, vocabulary 8192", WIDE_VOCABULARY: "4 x 256, vocabulary 50257", GPT2: "GPT-2 124M",
}


def size_name(size: Size) -> str:
    """How a size is called in a case; one that has no name of its own is described."""
    return SIZE_NAMES.get(size, f"{size.layers} x {size.width}, vocabulary {size.vocab}")


@dataclass(frozen=True)
class Load:
    """Requests to serve.

    requests: how many. rows: how many are decoded at the same time. prompt_tokens, new_tokens: the shortest and the
    longest; where they differ, lengths follow a Pareto distribution of exponent 1 cut at the longest: half the requests
    are no longer than twice the shortest, few are as long as allowed. sampled: draw at temperature 1, else greedy.
    seed: of lengths, prompts and draws.
    """

    requests: int
    rows: int
    prompt_tokens: tuple[int, int]
    new_tokens: tuple[int, int]
    sampled: bool = False
    seed: int = 0

    @property
    def mixed(self) -> bool:
        """Whether lengths differ."""
        return self.prompt_tokens[0] != self.prompt_tokens[1] or self.new_tokens[0] != self.new_tokens[1]

    def prompts(self, vocab: int) -> list[list[int]]:
        """Random ids from 2 (0 ends an answer, 1 pads) to `vocab`, a list for each request."""
        lengths = heavy_tailed(self.prompt_tokens, self.requests, self.seed)
        draw = random.Random(f"prompts {self.seed}")
        return [[draw.randrange(2, vocab) for _ in range(length)] for length in lengths]

    def limits(self) -> list[int]:
        """Tokens that each request is for."""
        return heavy_tailed(self.new_tokens, self.requests, self.seed + 1)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Load:
        values = json.loads(text)
        ranges = {name: tuple(values[name]) for name in ("prompt_tokens", "new_tokens")}
        return cls(**{**values, **ranges})


def heavy_tailed(limits: Sequence[int], count: int, seed: int) -> list[int]:
    """`count` lengths between the two limits: shortest / u for uniform u, cut at the longest."""
    shortest, longest = limits
    draw = random.Random(f"lengths {seed}")
    return [min(longest, int(shortest / (1.0 - draw.random()))) for _ in range(count)]
