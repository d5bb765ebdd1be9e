"""What models say about whole sequences: packed without padding, without gradient, without dropout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from instructgpt_fast.model import ScalarModel, scores_at_last


def pack_tokens(sequences: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Sequences one after the other: tokens int64 [N] and their boundaries cu_seqlens int32 [S + 1]."""
    tokens = [token for sequence in sequences for token in sequence]
    ends = [0]
    for sequence in sequences:
        ends.append(ends[-1] + len(sequence))
    return (
        torch.tensor(tokens, dtype=torch.int64, device=device),
        torch.tensor(ends, dtype=torch.int32, device=device),
    )


@contextlib.contextmanager
def judging(model: nn.Module) -> Iterator[None]:
    """Without gradient and dropout inside the block; the model's mode comes back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def score_sequences(model: ScalarModel, sequences: Sequence[Sequence[int]], *, batch_size: int = 32) -> Tensor:
    """Reward-model scores of token sequences, read at the last token; f32 [S] on the CPU.

    batch_size: sequences in one forward; a score does not depend on it beyond rounding.
    """
    device = model.head.weight.device
    scores = [torch.empty(0)]
    with judging(model):
        for start in range(0, len(sequences), batch_size):
            tokens, cu_seqlens = pack_tokens(sequences[start:start + batch_size], device)
            scores.append(scores_at_last(model(tokens, cu_seqlens=cu_seqlens), cu_seqlens).cpu())
    return torch.cat(scores)
