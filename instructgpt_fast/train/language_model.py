"""The language-model loss of dense and packed batches, for training and for evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from instructgpt_fast.model import GPT, GPTConfig, shift_packed
from instructgpt_fast.ops import linear_cross_entropy
from instructgpt_fast.train.flops import batch_flops


def lm_loss(model: GPT, batch: Mapping[str, Tensor]) -> Tensor:
    """Sum over counted tokens of -log p(token | the tokens before it), in nats; differentiable.

    batch: "tokens" int64 [B, T], or packed [N] with "cu_seqlens" int32 [S + 1] and no attention across sequences;
    "loss_mask" bool of the shape of tokens, left out when every token with a predecessor counts.
    Returns f32 [].
    """
    tokens, cu_seqlens = batch["tokens"], batch.get("cu_seqlens")
    hidden = model(tokens, cu_seqlens=cu_seqlens)
    before, targets, mask = shift_packed(hidden, tokens, batch.get("loss_mask"), cu_seqlens)
    return linear_cross_entropy(before, model.lm_weight, targets, mask)


def count_targets(batch: Mapping[str, Tensor]) -> int:
    """How many tokens `lm_loss` sums over: counted ones that do not begin a sequence."""
    tokens, cu_seqlens, mask = batch["tokens"], batch.get("cu_seqlens"), batch.get("loss_mask")
    counted = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    if cu_seqlens is None:
        return int(counted[:, 1:].sum())
    nonempty = cu_seqlens.diff() > 0
    starts = cu_seqlens[:-1][nonempty].long()
    return int(counted.sum() - counted[starts].sum())


def lm_flops(config: GPTConfig, batch: Mapping[str, Tensor]) -> float:
    """FLOPs of `lm_loss` on a batch and of its gradient."""
    return batch_flops(config, batch, count_targets(batch))


def evaluate_lm(model: GPT, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Mean loss per counted token over batches, without dropout or gradient.

    Returns {"eval_loss" in nats per token, "eval_perplexity", "eval_tokens"}.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            total += float(lm_loss(model, batch))
            count += count_targets(batch)
    model.train(was_training)
    mean = total / count if count else math.nan
    return {"eval_loss": mean, "eval_perplexity": math.exp(min(mean, 700.0)), "eval_tokens": float(count)}
