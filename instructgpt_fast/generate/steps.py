"""The step that draws a token for every active row, and what is told of the tokens beside it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from instructgpt_fast.generate.active import ActiveRows
from instructgpt_fast.generate.row import NO_PENALTY, Row
from instructgpt_fast.model import Decoder

_sample_token = torch.ops.instructgpt_fast.sample_token


class Steps:
    """A decoder bound to the slots of the rows that it advances."""

    def __init__(self, decoder: Decoder, active: ActiveRows, slots: int) -> None:
        self._decoder, self._active = decoder, active
        self._logits = torch.empty(slots, decoder.config.vocab_size, device=active.tokens.device)

    def decode(self, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw `steps` more tokens for the first `count` slots; returns tokens int64, logprobs f32 [steps, count]."""
        drawn = [self._step(count) for _ in range(steps)]
        if steps == 1:
            return drawn[0][0].cpu().numpy()[None], drawn[0][1].cpu().numpy()[None]
        tokens, logprobs = (torch.stack(part) for part in zip(*drawn, strict=True))
        return tokens.cpu().numpy(), logprobs.cpu().numpy()

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
        positions += 1
        lengths += 1
        history = None if active.history is None else active.history[:count]
        tokens, logprobs = _sample_token(logits, active.seeds[:count], positions, active.parameters[:count], history)
        active.tokens[:count] = tokens
        if history is not None:
            history.scatter_(1, positions[:, None], tokens[:, None])
        return tokens, logprobs
