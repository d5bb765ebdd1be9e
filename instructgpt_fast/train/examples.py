"""Which examples a step trains on, and the lengths they may have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instructgpt_fast.data import Limits, Order, pack_encoded
from instructgpt_fast.tokenizer import Encoded
from instructgpt_fast.train.options import ExampleOptions


class ExampleStream:
    """The examples of each step, a pure function of seed and step; every pass has an order of its own."""

    def __init__(self, count: int, config: ExampleOptions) -> None:
        """count: examples in one pass. The last step of a run by epochs holds what is left, not more."""
        self._order = Order(count, config.seed)
        self._batch = config.batch_size
        limit = max(1, round(count * config.num_train_epochs))
        self.steps = config.max_steps or math.ceil(limit / self._batch)
        self._end = self.steps * self._batch if config.max_steps else limit

    def batch(self, step: int) -> list[int]:
        """Indices of the examples of a step, steps counted from 1."""
        first = (step - 1) * self._batch
        return [int(index) for index in self._order.at(np.arange(first, min(first + self._batch, self._end)))]

    def epoch(self, step: int) -> float:
        """Passes over the data after a step."""
        return min(step * self._batch, self._end) / self._order.n

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps after a step."""
        return {"order": {**self._order.state(), "position": step * self._batch}}

    def restore(self, counters: Mapping[str, Any]) -> None:
        """Check that a resumed run goes through the same data in the same order. Raises DataError when it does not."""
        if "order" in counters:
            self._order.restore(counters["order"])


def limits_of(config: ExampleOptions, context: int) -> Limits:
    """The lengths that the options set, for a model that reads `context` tokens. Raises ConfigError."""
    longest = context if config.max_tokens is None else config.max_tokens
    config.require(
        f"max_tokens must be at most the model's context of {context} tokens", longest <= context, max_tokens=longest
    )
    return Limits(config.max_prompt_tokens or longest, config.max_response_tokens or longest, longest, config.on_long)


def packed_batches(examples: Sequence[Encoded], size: int, device: torch.device | str) -> Iterator[dict[str, Tensor]]:
    """Packed batches of at most `size` examples, in order."""
    for start in range(0, len(examples), size):
        yield pack_encoded(examples[start:start + size], device)
