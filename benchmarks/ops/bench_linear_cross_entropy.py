"""linear_cross_entropy beside F.cross_entropy(F.linear(...)): loss, gradients, masked tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops

WIDTH = 256
COUNTED = 0.4  # of the tokens, where there is a mask: prompts are longer than responses


def draw(
    count: int, vocabulary: int, dtype: torch.dtype, device: str, *, masked: bool, grad: bool
) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(count, WIDTH, generator=generator).to(device, dtype)
        weight = (torch.randn(vocabulary, WIDTH, generator=generator) * 0.06).to(device, dtype)
        mask = torch.rand(count, generator=generator) < COUNTED
        return {
            "hidden": hidden,
            "weight": weight,
            "targets": torch.randint(0, vocabulary, (count,), generator=generator).to(device),
            "loss_mask": mask.to(device) if masked else None,
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


def cases(device: str) -> list[Case]:
    found = []
    for vocabulary in (8192, 50257):
        for dtype in (torch.float32, torch.bfloat16):
            for count, masked, grad in (
                (2048, False, False),
                (512, False, True),
                (2048, False, True),
                (2048, True, True),
            ):
                counted = count * (COUNTED if masked else 1.0)
                label = f"V={vocabulary} N={count} {str(dtype).removeprefix('torch.')}"
                found.append(
                    Case(
                        name=label + (" grad" if grad else " loss") + (" 40% counted" if masked else ""),
                        draw=draw(count, vocabulary, dtype, device, masked=masked, grad=grad),
                        draw_check=draw(min(count, 200), vocabulary, dtype, device, masked=masked, grad=grad),
                        ours=evaluated(ops.linear_cross_entropy),
                        rivals={"plain": evaluated(plain)} | ({"selected": evaluated(selected)} if masked else {}),
                        oracle=evaluated(ops.linear_cross_entropy_oracle),
                        flops=2.0 * counted * vocabulary * WIDTH * (3 if grad else 1),
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
