"""The step that draws a token for every active row, and what is told of the tokens beside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from instructgpt_fast.generate.active import ActiveRows
from instructgpt_fast.generate.graphs import StepGraphs, bucket_of
from instructgpt_fast.generate.row import NO_PENALTY, Row
from instructgpt_fast.model import Decoder

_sample_token = torch.ops.instructgpt_fast.sample_token


class _Lines(NamedTuple):
    """The first lines of what a step reads and writes.

    Made once a number of rows: after the weights have passed through the caches, a slice costs as much as a kernel.
    """

    tokens: Tensor
    positions: Tensor
    lengths: Tensor
    advance: Tensor
    block_table: Tensor
    seeds: Tensor
    parameters: Tensor
    logits: Tensor


class Steps:
    """A decoder bound to the slots of the rows that it advances."""

    def __init__(self, decoder: Decoder, active: ActiveRows, slots: int, most_steps: int) -> None:
        """most_steps: that are ever taken at once."""
        device = active.tokens.device
        self._decoder, self._active, self._slots = decoder, active, slots
        self._logits = torch.empty(slots, decoder.config.vocab_size, device=device)
        self._graphs = StepGraphs(self._step, active.restore) if device.type == "cuda" else None
        self._lines: dict[int, _Lines] = {}
        self._tokens = torch.empty(most_steps, slots, dtype=torch.int64, device=device)
        self._logprobs = torch.empty(most_steps, slots, device=device)

    def decode(self, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw `steps` more tokens for the first `count` slots; returns tokens int64, logprobs f32 [steps, count]."""
        if self._graphs is None and steps == 1:
            tokens, logprobs = self._step(count)
            return tokens[None].cpu().numpy(), logprobs[None].cpu().numpy()
        self.enqueue(count, steps)
        return self._tokens[:steps, :count].cpu().numpy(), self._logprobs[:steps, :count].cpu().numpy()

    def enqueue(self, count: int, steps: int) -> None:
        """Have the device draw; nothing waits for it."""
        for step in range(steps):
            if self._graphs is None:
                tokens, logprobs = self._step(count)
            else:
                width = bucket_of(count, self._slots)
                tokens, logprobs = self._graphs.run(width, self._active.history is not None)
            self._tokens[step, :count] = tokens[:count]
            self._logprobs[step, :count] = logprobs[:count]

    def alternatives(self, place: int, row: Row, token: int, logprob: float) -> tuple[tuple[int, float], ...]:
        """The row's likeliest tokens at its last draw, with their log-probabilities as the drawn one's is meant.

        place: the row's line in that draw. row: before it took the token.
        """
        scores = self._logits[place].clone()
        temperature, penalty = row.parameters[0] or 1.0, row.parameters[-1]
        if penalty != NO_PENALTY:
            seen = torch.tensor(sorted(set(row.tokens)), device=scores.device)
            found = scores[seen]
            scores[seen] = torch.where(found > 0, found / penalty, found * penalty)
        best, ids = scores.topk(min(row.top_logprobs, len(scores)))
        # Measured from the drawn token, whose log-probability is known: no sum over the vocabulary is needed.
        relative = ((best.double() - scores[token].double()) / temperature + logprob).tolist()
        return tuple(zip(ids.tolist(), relative, strict=True))

    def _step(self, count: int) -> tuple[Tensor, Tensor]:
        if count not in self._lines:
            self._lines[count] = self._lines_of(count)
        at = self._lines[count]
        # A row whose logits are broken holds -1, which is no token; whoever looks next will see it.
        hidden = self._decoder.step(at.tokens.clamp(min=0), at.positions, at.block_table, at.lengths)
        logits = self._decoder.logits(hidden, out=at.logits)
        at.positions.add_(at.advance)
        at.lengths.add_(at.advance)
        history = None if self._active.history is None else self._active.history[:count]
        tokens, logprobs = _sample_token(logits, at.seeds, at.positions, at.parameters, history)
        at.tokens.copy_(tokens)
        if history is not None:
            history.scatter_(1, at.positions[:, None], tokens[:, None])
        return tokens, logprobs

    def _lines_of(self, count: int) -> _Lines:
        active = self._active
        return _Lines(*(whole[:count] for whole in (
            active.tokens, active.positions, active.lengths, active.advance, active.block_table, active.seeds,
            active.parameters, self._logits,
        )))
