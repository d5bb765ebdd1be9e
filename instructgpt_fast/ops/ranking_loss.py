"""The reward model's loss over all ordered pairs of each prompt's ranked answers, ties dropped.

Not covered: weights per prompt or pair, and averaging over prompts: the caller divides by the count it has summed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from instructgpt_fast.ops import _checks, _library

_forward = torch.ops.instructgpt_fast.ranking_loss


class RankingLoss(NamedTuple):
    """What `ranking_loss` returns; the counts carry no gradient."""

    loss: Tensor  # [] float32, sum over prompts of the mean over their ordered pairs
    num_prompts: Tensor  # [] int64, prompts with at least one ordered pair
    num_pairs: Tensor  # [] int64, ordered pairs
    num_correct: Tensor  # [] float32, pairs whose scores agree with the ranks; a pair of equal scores counts half


def ranking_loss(scores: Tensor, ranks: Tensor, group_offsets: Tensor) -> RankingLoss:
    """Computes sum over prompts of 1/|P| sum over P of -log sigmoid(s_w - s_l), P = pairs with w ranked before l.

    Ouyang et al. 2022, arXiv:2203.02155, eq. 1, before its mean over prompts. With ties dropped, |P| takes the place
    of C(K, 2). A prompt without an ordered pair (one answer, or all tied) adds nothing and is not counted. A score
    that is not finite gives a loss that is not finite.

    Args:
        scores: [N] float32, the reward model's number for each answer; the answers of a prompt are neighbours.
        ranks: [N] int64, 1 = best, equal = tied; only their order within a prompt matters.
        group_offsets: [P + 1] int64: prompt p owns scores[group_offsets[p]:group_offsets[p + 1]]; starts at 0, never
            falls, ends at N. Groups may differ in size and may be empty.

    Returns:
        RankingLoss; `loss` has a gradient to `scores`.

    Raises:
        TypeError: for a dtype that is not served. BackendError: for a device without a kernel.
        ValueError: for shapes that do not fit or offsets that are not as above (a RuntimeError under torch.compile; on
        a GPU, where looking at them would wait for the device, the loss is NaN instead).
    """
    _check(scores, ranks, group_offsets)
    if torch.is_grad_enabled() and scores.requires_grad:
        return RankingLoss(*_RankingLoss.apply(scores, ranks, group_offsets))
    return RankingLoss(*_forward(scores, ranks, group_offsets, False)[:4])


def ranking_loss_oracle(scores: Tensor, ranks: Tensor, group_offsets: Tensor) -> RankingLoss:
    """The same in plain torch, one prompt at a time over its whole K x K table; differentiable."""
    # The sum of nothing, so that the loss has a gradient (of 0) also where there are no pairs.
    loss, correct = scores[:0].sum(), scores.new_zeros(())
    prompts, pairs = 0, 0
    offsets = group_offsets.tolist()
    for start, end in zip(offsets[:-1], offsets[1:], strict=True):
        group, rank = scores[start:end], ranks[start:end]
        ordered = rank[:, None] < rank[None, :]
        margins = (group[:, None] - group[None, :])[ordered]
        if margins.numel() == 0:
            continue
        loss = loss - torch.nn.functional.logsigmoid(margins).mean()
        correct = correct + (margins.detach() > 0).sum() + 0.5 * (margins.detach() == 0).sum()
        prompts, pairs = prompts + 1, pairs + margins.numel()
    counts = torch.tensor([prompts, pairs], dtype=torch.int64, device=scores.device)
    return RankingLoss(loss, counts[0], counts[1], correct.detach())


def _check(scores: Tensor, ranks: Tensor, group_offsets: Tensor) -> None:
    _checks.check_tensor("ranking_loss", "scores", scores, dtypes=(torch.float32,), dim=1)
    _checks.check_tensor("ranking_loss", "ranks", ranks, dtypes=(torch.int64,))
    _checks.check_tensor("ranking_loss", "group_offsets", group_offsets, dtypes=(torch.int64,), dim=1)
    _checks.check_shape("ranking_loss", "ranks", ranks, scores.shape, "[N] of scores")
    if group_offsets.shape[0] < 1:
        raise ValueError("ranking_loss: group_offsets must have P + 1 >= 1 elements, got none; no prompts is [0]")
    _checks.check_served("ranking_loss", scores=scores, ranks=ranks, group_offsets=group_offsets)
    # While tracing there are no numbers to look at, and on a GPU looking would wait; the native ops look by themselves.
    if group_offsets.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_offsets(group_offsets.tolist(), scores.shape[0])


def _check_offsets(offsets: list[int], answers: int) -> None:
    if offsets[0] != 0 or offsets[-1] != answers:
        raise ValueError(
            f"ranking_loss: group_offsets must start at 0 and end at the number of scores, {answers}, got "
            f"{offsets[0]} and {offsets[-1]}"
        )
    for group, (start, end) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        if end < start:
            raise ValueError(f"ranking_loss: group_offsets must not fall, got {start} then {end} at group {group}")


class _RankingLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, ranks: Tensor, group_offsets: Tensor) -> tuple[Tensor, ...]:
        loss, prompts, pairs, correct, grad_scores = _forward(scores, ranks, group_offsets, True)
        ctx.save_for_backward(grad_scores)
        ctx.mark_non_differentiable(prompts, pairs, correct)
        return loss, prompts, pairs, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        (grad_scores,) = ctx.saved_tensors
        return grad_scores * dloss, None, None


@torch.library.register_fake(f"{_library.NAMESPACE}::ranking_loss")
def _fake_forward(
    scores: Tensor, ranks: Tensor, group_offsets: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    counts = (ranks.new_empty(()), ranks.new_empty(()))
    gradients = scores.shape[0] if with_gradient else 0  # a product with a bool is no size in torch 2.11
    return (scores.new_empty(()), *counts, scores.new_empty(()), scores.new_empty(gradients))
