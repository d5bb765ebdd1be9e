"""Scores of PPO: from what a reward model or a function says to what the policy is rewarded with."""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt_fast.ops import masked_whiten

__all__ = ["shape_scores"]


def shape_scores(
    scores: Tensor,
    finished: Tensor,
    *,
    missing_eos_penalty: float = 0.0,
    whiten: bool = False,
    clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Turn raw scores into the numbers the policy is rewarded with: EOS penalty, then whitening, then clipping.

    scores: f32 [B]. finished: bool [B], True where the response ended with EOS.
    missing_eos_penalty: subtracted where it did not. whiten: zero mean and unit variance over the batch.
    clip: bound on the absolute value after that, in the same unit.
    Returns (penalised, shaped), both f32 [B]: the first is what the log calls `objective/scores`.
    """
    penalised = torch.where(finished, scores, scores - missing_eos_penalty)
    shaped = masked_whiten(penalised, torch.ones_like(finished)) if whiten else penalised
    if clip is not None:
        shaped = shaped.clamp(-clip, clip)
    return penalised, shaped
