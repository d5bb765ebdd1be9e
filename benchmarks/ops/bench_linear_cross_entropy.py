"""linear_cross_entropy beside F.cross_entropy(F.linear(...)): eager, compiled, in checkpointed chunks; with a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops

CHECKPOINTED = 1024  # tokens of a chunk of the checkpointed rival
COUNTED = 0.4  # of the tokens, where there is a mask: prompts are longer than responses


def draw(
    count: int, width: int, vocabulary: int, dtype: torch.dtype, device: str, *, masked: bool, grad: bool
) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        hidden = torch.randn(count, width, generator=generator, device=device).to(dtype)
        weight = (torch.randn(vocabulary, width, generator=generator, device=device) / width**0.5).to(dtype)
        mask = torch.rand(count, generator=generator, device=device) < COUNTED
        return {
            "hidden": hidden,
            "weight": weight,
            "targets": torch.randint(0, vocabulary, (count,), generator=generator, device=device),
            "loss_mask": mask if masked else None,
            "grad": grad,
        }

    return inputs


def evaluated(function: Callable[..., Any]) -> Contender:
    """The contender: the mean loss and, where asked for, both gradients."""

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        mask, grad = inputs["loss_mask"], inputs["grad"]
        hidden, weight = (inputs[k].detach().requires_grad_(grad) for k in ("hidden", "weight"))
        count = len(hidden) if mask is None else int(mask.sum())
        loss = function(hidden, weight, inputs["targets"], mask) / count
        return [loss.detach(), *(torch.autograd.grad(loss, (hidden, weight)) if grad else ())]

    return contender


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """As most training code has it: all logits, the mask applied to the losses."""
    losses = F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="none")
    return losses.sum() if mask is None else (losses * mask).sum()


def selected(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Careful plain code: only counted rows reach the output layer."""
    if mask is not None:
        hidden, targets = hidden[mask], targets[mask]
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")


def checkpointed(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """The usual way to keep logits small without an op of one's own: chunks, multiplied once more backward."""
    total = torch.zeros((), device=hidden.device)
    for first in range(0, len(hidden), CHECKPOINTED):
        part = slice(first, first + CHECKPOINTED)
        chunk = None if mask is None else mask[part]
        total = total + checkpoint(plain, hidden[part], weight, targets[part], chunk, use_reentrant=False)
    return total


def shapes(device: str) -> list[tuple[int, int, int, torch.dtype, bool, bool]]:
    """Tokens, width, vocabulary, dtype, whether a mask counts some of them, whether gradients are wanted."""
    kinds = ((False, False), (False, True), (True, True))
    if device == "cuda":
        return [(16384, width, 50257, torch.bfloat16, *kind) for width in (768, 1600) for kind in kinds]
    sizes = ((2048, False, False), (512, False, True), (2048, False, True), (2048, True, True))
    return [
        (count, 256, vocabulary, dtype, masked, grad)
        for vocabulary in (8192, 50257)
        for dtype in (torch.float32, torch.bfloat16)
        for count, masked, grad in sizes
    ]


def cases(device: str) -> list[Case]:
    compiled = {"torch.compile": evaluated(torch.compile(plain))} if device == "cuda" else {}
    found = []
    for count, width, vocabulary, dtype, masked, grad in shapes(device):
        counted = count * (COUNTED if masked else 1.0)
        label = f"V={vocabulary} D={width} N={count} {str(dtype).removeprefix('torch.')}"
        careful = {"selected": evaluated(selected)} if masked else {}
        small = {"checkpointed": evaluated(checkpointed)} if grad and device == "cuda" else {}
        found.append(
            Case(
                name=label + (" grad" if grad else " loss") + (" 40% counted" if masked else ""),
                draw=draw(count, width, vocabulary, dtype, device, masked=masked, grad=grad),
                draw_check=draw(min(count, 200), width, vocabulary, dtype, device, masked=masked, grad=grad),
                ours=evaluated(ops.linear_cross_entropy),
                rivals={"plain": evaluated(plain)} | careful | compiled | small,
                oracle=evaluated(ops.linear_cross_entropy_oracle),
                flops=2.0 * counted * vocabulary * width * (3 if grad else 1),
                dtype=dtype,
                looser={
                    "rms_factor": 1.8,
                    "ulps": 4.0,
                    "why_looser": "the loss is one number; bfloat16 gradients are rounded again when scaled",
                },
            )
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    run("linear_cross_entropy", cases, arguments)
