"""The step that draws a token for every active row, and what is told of the tokens beside it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from instructgpt_fast.generate.active import ActiveRows
from instructgpt_fast.generate.graphs import StepGraphs, bucket_of
from instructgpt_fast.generate.row import NO_PENALTY, Row
from instructgpt_fast.model import Decoder

_sample_token = torch.ops.instructgpt_fast.sample_token


class Steps:
    """A decoder bound to the slots of the rows that it advances."""

    def __init__(self, decoder: Decoder, active: ActiveRows, slots: int, most_steps: int) -> None:
        """most_steps: that are ever taken at once."""
        device = active.tokens.device
        self._decoder, self._active, self._slots = decoder, active, slots
        self._logits = torch.empty(slots, decoder.config.vocab_size, device=device)
        self._graphs = StepGraphs(self._step, active.restore) if device.type == "cuda" else None
        self._tokens = torch.empty(most_steps, slots, dtype=torch.int64, device=device)
        self._logprobs = torch.empty(most_steps, slots, device=device)

    def decode(self, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw `steps` more tokens for the first `count` slots; returns tokens int64, logprobs f32 [steps, count]."""
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
        active = self._active
        positions, lengths = active.positions[:count], active.lengths[:count]
        # A row whose logits are broken holds -1, which is no token; whoever looks next will see it.
        fed = active.tokens[:count].clamp(min=0)
        hidden = self._decoder.step(fed, positions, active.block_table[:count], lengths)
        logits = self._decoder.logits(hidden, out=self._logits[:count])
        positions += active.advance[:count]
        lengths += active.advance[:count]
        history = None if active.history is None else active.history[:count]
        tokens, logprobs = _sample_token(logits, active.seeds[:count], positions, active.parameters[:count], history)
        active.tokens[:count] = tokens
        if history is not None:
            history.scatter_(1, positions[:, None], tokens[:, None])
        return tokens, logprobs
