"""What the models say about packed responses: log-probabilities, entropies, values and scores.

Only the hidden states that predict a response token reach the output layer, and the logits are never whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instructgpt_fast.model import GPT, ScalarModel, counted_rows, scores_at_last
from instructgpt_fast.ops import token_logprobs
from instructgpt_fast.rlhf.batch import PackedBatch, chunks_by_tokens, pack
from instructgpt_fast.rlhf.rollout import Rollout

__all__ = [
    "response_logprobs",
    "response_values",
    "rollout_logprobs",
    "rollout_scores",
    "rollout_values",
    "sequence_scores",
]


def response_logprobs(model: GPT, batch: PackedBatch, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability of each response token and entropy of the distribution it was drawn from; differentiable.

    temperature: the sampler's, because the policy that acts is softmax(logits / temperature).
    Returns two f32 [n] in nats, n the number of response tokens, in packed order.
    """
    hidden = model(batch.tokens, cu_seqlens=batch.cu_seqlens)
    before, targets, _ = counted_rows(hidden, batch.tokens, batch.loss_mask, batch.cu_seqlens)
    return token_logprobs(before, model.lm_weight, targets, temperature=temperature)


def response_values(model: ScalarModel, batch: PackedBatch) -> Tensor:
    """Value of the state in which each response token is chosen, so read one token earlier; f32 [n], differentiable."""
    values = model(batch.tokens, cu_seqlens=batch.cu_seqlens)
    before, _, _ = counted_rows(values[:, None], batch.tokens, batch.loss_mask, batch.cu_seqlens)
    return before.squeeze(1)


def sequence_scores(model: ScalarModel, batch: PackedBatch) -> Tensor:
    """Reward-model score of each prompt with its response, read at the last token; f32 [S]."""
    return scores_at_last(model(batch.tokens, cu_seqlens=batch.cu_seqlens), batch.cu_seqlens)


def rollout_logprobs(model: GPT, rollout: Rollout, *, temperature: float, max_tokens: int) -> Tensor:
    """Log-probabilities of every response of a rollout under `model`, without gradient; f32 [B, R]."""
    def read(batch: PackedBatch) -> Tensor:
        return response_logprobs(model, batch, temperature=temperature)[0]

    return rollout.pad(_in_chunks(rollout, max_tokens, read))


def rollout_values(model: ScalarModel, rollout: Rollout, *, max_tokens: int) -> Tensor:
    """Values of every response token of a rollout, without gradient; f32 [B, R]."""
    return rollout.pad(_in_chunks(rollout, max_tokens, lambda b: response_values(model, b)))


def rollout_scores(model: ScalarModel, rollout: Rollout, *, max_tokens: int) -> Tensor:
    """Scores of every response of a rollout, without gradient; f32 [B]."""
    return _in_chunks(rollout, max_tokens, lambda b: sequence_scores(model, b))


def _in_chunks(rollout: Rollout, max_tokens: int, read: Callable[[PackedBatch], Tensor]) -> Tensor:
    # One forward holds at most max_tokens tokens, which bounds the memory of a large rollout.
    parts = []
    with torch.no_grad():
        for rows in chunks_by_tokens(rollout.sequence_lengths, max_tokens):
            parts.append(read(pack(rollout.prompts[rows], rollout.responses[rows], rollout.device)))
    return torch.cat(parts)
