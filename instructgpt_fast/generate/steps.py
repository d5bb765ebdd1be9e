"""The steps that draw tokens: from prompts that have been prefilled, and one more for every active row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from instructgpt_fast.generate.active import ActiveRows
from instructgpt_fast.generate.row import NO_PENALTY, Row
from instructgpt_fast.model import Chunk, Decoder

_sample_token = torch.ops.instructgpt_fast.sample_token


class Steps:
    """A decoder bound to the slots of the rows that it advances."""

    def __init__(self, decoder: Decoder, active: ActiveRows, slots: int) -> None:
        self._decoder, self._active = decoder, active
        self._logits = torch.empty(slots, decoder.config.vocab_size, device=active.tokens.device)

    def prefill(self, chunks: Sequence[Chunk]) -> Tensor:
        """Store the chunks' keys and values; returns the hidden states of their tokens, [N, D]."""
        return self._decoder.prefill(chunks)

    def first(self, hidden: Tensor, places: list[int], begin: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the first token of the rows in slots `begin` and after.

        hidden: [N, D]; places: for each of the rows, which of the N it goes on from.
        Returns tokens int64 [1, n] and logprobs f32 [1, n].
        """
        index = torch.tensor(places).to(hidden.device)
        tokens, logprobs = self._draw(hidden.index_select(0, index), begin)
        return tokens.cpu().numpy()[None], logprobs.cpu().numpy()[None]

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
        positions += 1
        lengths += 1
        return self._draw(hidden, 0)

    def _draw(self, hidden: Tensor, begin: int) -> tuple[Tensor, Tensor]:
        active, end = self._active, begin + len(hidden)
        history = active.history
        positions = active.positions[begin:end]
        logits = self._decoder.logits(hidden, out=self._logits[: len(hidden)])
        tokens, logprobs = _sample_token(
            logits, active.seeds[begin:end], positions, active.parameters[begin:end],
            None if history is None else history[begin:end],
        )
        active.tokens[begin:end] = tokens
        if history is not None:
            history[begin:end].scatter_(1, positions[:, None], tokens[:, None])
        return tokens, logprobs
