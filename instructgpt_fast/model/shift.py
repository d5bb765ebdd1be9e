"""The one place where hidden states meet the tokens they predict.

The log-probability of tokens[t] comes from hidden[t-1]. A mask is aligned with the token it judges, so loss_mask[t]
belongs to tokens[t]; nothing else in the package moves one against the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def shift_packed(
    hidden: Tensor, tokens: Tensor, loss_mask: Tensor | None, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Line up each token with the hidden state before it, without copying the hidden states.

    Row i of the result pairs flat hidden state i with flat token i + 1. Where token i + 1 begins a sequence there is
    no predecessor, so the row's mask is False; such rows stay in place because removing them would copy [N, D].

    hidden: [N, D], or [B, T, D] for a dense batch; any float dtype.
    tokens: int64 [N] or [B, T].
    loss_mask: bool [N] or [B, T], True where the token counts; None counts every token that has a predecessor.
    cu_seqlens: int32 [S + 1], sequence boundaries of a packed batch; None for a dense one.
    Returns (hidden_before [N - 1, D], targets int64 [N - 1], mask bool [N - 1]), N being B * T when dense.
    Raises ValueError when the shapes contradict each other.
    """
    if hidden.shape[:-1] != tokens.shape or (loss_mask is not None and loss_mask.shape != tokens.shape):
        mask_shape = None if loss_mask is None else tuple(loss_mask.shape)
        raise ValueError(
            f"shift_packed: hidden [..., D], tokens and loss_mask must agree, got {tuple(hidden.shape)}, "
            f"{tuple(tokens.shape)} and {mask_shape}; pass the batch the model was run on."
        )
    if (cu_seqlens is None) != (tokens.dim() == 2):
        raise ValueError(
            f"shift_packed: tokens of shape {tuple(tokens.shape)} need "
            f"{'no cu_seqlens' if cu_seqlens is not None else 'cu_seqlens'}; "
            "a packed batch is [N] with cu_seqlens, a dense one [B, T] without."
        )
    mask = torch.ones_like(tokens, dtype=torch.bool) if loss_mask is None else loss_mask.clone()
    if cu_seqlens is None:
        mask[:, :1] = False
    else:
        # An empty sequence starts where the next one does; one at the very end starts past the last token.
        starts = cu_seqlens[:-1].long()
        mask = torch.cat([mask, mask.new_zeros(1)])
        mask[starts] = False
        mask = mask[:-1]
    return hidden.reshape(-1, hidden.shape[-1])[:-1], tokens.reshape(-1)[1:], mask.reshape(-1)[1:]


def counted_rows(
    hidden: Tensor, tokens: Tensor, loss_mask: Tensor | None, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gather only the rows whose token counts, for work that should not be spent on the others.

    Arguments as in `shift_packed`. Returns (hidden_before [M, D], targets int64 [M], index int64 [M]); index is the
    flat position in `tokens` of each target, so `out.view(-1)[index] = values` puts results beside their tokens.
    """
    hidden_before, targets, mask = shift_packed(hidden, tokens, loss_mask, cu_seqlens)
    rows = mask.nonzero().squeeze(1)
    return hidden_before.index_select(0, rows), targets.index_select(0, rows), rows + 1


def rows_before_ends(cu_seqlens: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Rows of the hidden states that predict the last tokens of sequences which were run without their very last one.

    A sequence one token longer than the context can be judged so: its last token is predicted but never read.
    cu_seqlens: [S + 1], boundaries of the packed inputs. counts: [S], tokens judged at the end of each sequence, the
    one left out among them; from 0 to the length of its input.
    Returns int64 [sum of counts]: sequence after sequence, within each in the order of its tokens.
    Raises ValueError when a count does not fit its sequence.
    """
    rows: list[int] = []
    for begin, end, count in zip(cu_seqlens[:-1], cu_seqlens[1:], counts, strict=True):
        if not 0 <= count <= end - begin:
            raise ValueError(
                f"rows_before_ends: a count must lie in 0..{end - begin}, the length of the input, got {count}; give "
                "each judged token one before it."
            )
        rows.extend(range(end - count, end))
    return torch.tensor(rows, dtype=torch.int64)
