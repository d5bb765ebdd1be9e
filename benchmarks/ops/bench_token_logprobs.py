"""token_logprobs beside log_softmax over whole logits: eager, compiled, in checkpointed chunks; with gradients too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops

CHECKPOINTED = 1024  # tokens of a chunk of the checkpointed rival


def draw(
    count: int, width: int, vocabulary: int, dtype: torch.dtype, device: str, *, grad: bool
) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        return {
            "hidden": torch.randn(count, width, generator=generator, device=device).to(dtype),
            "weight": (torch.randn(vocabulary, width, generator=generator, device=device) / width**0.5).to(dtype),
            "tokens": torch.randint(0, vocabulary, (count,), generator=generator, device=device),
            "grad": grad,
        }

    return inputs


def evaluated(function: Callable[..., Any]) -> Contender:
    """The contender: log-probabilities, entropies and, where asked for, the gradients of a sum of both."""

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        hidden, weight = (inputs[k].detach().requires_grad_(inputs["grad"]) for k in ("hidden", "weight"))
        logprobs, entropy = function(hidden, weight, inputs["tokens"], temperature=0.7)
        results = [logprobs.detach(), entropy.detach()]
        if inputs["grad"]:
            results += torch.autograd.grad(logprobs.sum() + 0.01 * entropy.sum(), (hidden, weight))
        return results

    return contender


def plain(
    hidden: torch.Tensor, weight: torch.Tensor, tokens: torch.Tensor, *, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    log_p = F.log_softmax(F.linear(hidden, weight).float() / temperature, dim=-1)
    return log_p.gather(1, tokens[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def checkpointed(
    hidden: torch.Tensor, weight: torch.Tensor, tokens: torch.Tensor, *, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The usual way to keep logits small without an op of one's own: chunks, multiplied once more backward."""
    parts = [
        checkpoint(plain, hidden[first : first + CHECKPOINTED], weight, tokens[first : first + CHECKPOINTED],
                   temperature=temperature, use_reentrant=False)
        for first in range(0, len(hidden), CHECKPOINTED)
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])


def shapes(device: str) -> list[tuple[int, int, int, torch.dtype, bool]]:
    """Tokens, width, vocabulary, dtype, whether gradients are wanted."""
    if device == "cuda":
        return [(16384, width, 50257, torch.bfloat16, grad) for width in (768, 1600) for grad in (False, True)]
    return [
        (count, 256, vocabulary, dtype, grad)
        for vocabulary in (8192, 50257)
        for dtype in (torch.float32, torch.bfloat16)
        for count, grad in ((512, False), (2048, False), (512, True), (2048, True))
    ]


def cases(device: str) -> list[Case]:
    more = (
        {"torch.compile": evaluated(torch.compile(plain)), "checkpointed": evaluated(checkpointed)}
        if device == "cuda"
        else {}
    )
    found = []
    for count, width, vocabulary, dtype, grad in shapes(device):
        label = f"V={vocabulary} D={width} N={count} {str(dtype).removeprefix('torch.')}"
        found.append(
            Case(
                name=label + (" grad" if grad else ""),
                draw=draw(count, width, vocabulary, dtype, device, grad=grad),
                draw_check=draw(200, width, vocabulary, dtype, device, grad=grad),
                ours=evaluated(ops.token_logprobs),
                rivals={"plain": evaluated(plain)} | more,
                oracle=evaluated(ops.token_logprobs_oracle),
                # The backward pass multiplies the logits once more: that is counted as ours to pay.
                flops=2.0 * count * vocabulary * width * (3 if grad else 1),
                dtype=dtype,
            )
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    run("token_logprobs", cases, arguments)
