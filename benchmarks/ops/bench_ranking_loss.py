"""ranking_loss, forward and backward, beside plain PyTorch: prompt by prompt, and all prompts padded to one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops


def draw(prompts: int, device: str) -> Callable[[int], Inputs]:
    """K = 4 .. 9 answers a prompt, ranked on a scale of seven, so that some tie."""

    def inputs(seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        sizes = torch.randint(4, 10, (prompts,), generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        total = int(offsets[-1])
        drawn = {
            "scores": torch.randn(total, generator=generator),
            "ranks": torch.randint(1, 8, (total,), generator=generator),
            "group_offsets": offsets,
        }
        return {name: tensor.to(device) for name, tensor in drawn.items()}

    return inputs


def padded(scores: torch.Tensor, ranks: torch.Tensor, group_offsets: torch.Tensor) -> Sequence[torch.Tensor]:
    """All prompts at once in a [P, K, K] table, the pairs that do not exist masked out."""
    sizes = group_offsets.diff()
    width = int(sizes.max())
    inside = torch.arange(width, device=scores.device) < sizes[:, None]
    table = torch.zeros(inside.shape, dtype=scores.dtype, device=scores.device).masked_scatter(inside, scores)
    rank = torch.zeros(inside.shape, dtype=ranks.dtype, device=scores.device).masked_scatter(inside, ranks)
    pairs = (rank[:, :, None] < rank[:, None, :]) & inside[:, :, None] & inside[:, None, :]
    terms = -torch.nn.functional.logsigmoid(table[:, :, None] - table[:, None, :])
    return [((terms * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)).sum()]


def both_ways(loss_of: Callable[..., Sequence[torch.Tensor]]) -> Contender:
    """Forward, then backward; returns the loss and the gradient."""

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        leaf = inputs["scores"].detach().requires_grad_()
        loss = loss_of(**{**inputs, "scores": leaf})[0]
        loss.backward()
        return [loss.detach(), leaf.grad]

    return contender


def cases(device: str) -> Sequence[Case]:
    """The paper's batch of 64 prompts, and eight of them; on a GPU also as many as would fill it."""
    found = []
    for prompts in (64, 512, 16384) if device == "cuda" else (64, 512):
        rivals = {"torch, padded": both_ways(padded)}
        if device == "cuda":
            rivals["torch.compile, padded"] = both_ways(torch.compile(padded))
        if prompts <= 512:  # some hundred thousand small kernels otherwise
            rivals["torch, by prompt"] = both_ways(ops.ranking_loss_oracle)
        found.append(
            Case(
                f"{prompts} prompts, K = 4 .. 9",
                draw(prompts, device),
                draw_check=draw(min(prompts, 512), device),  # the oracle goes prompt by prompt
                ours=both_ways(ops.ranking_loss),
                rivals=rivals,
                oracle=both_ways(ops.ranking_loss_oracle),
            )
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    run("ranking_loss", cases, arguments)
