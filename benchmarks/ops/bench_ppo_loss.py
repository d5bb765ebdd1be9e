"""ppo_loss, forward and backward with its statistics, beside the same in plain PyTorch, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops

CLIPS = {"cliprange": 0.2, "cliprange_value": 0.2, "vf_coef": 0.1}
EXTRAS = {"entropy_coef": 0.01, "kl_loss_coef": 0.05}
DIFFERENTIABLE = ("logprobs", "values")


def draw(rows: int, columns: int, device: str, *, extras: bool) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)

        def new(scale: float = 1.0) -> torch.Tensor:
            return torch.randn(rows, columns, generator=generator, device=device).mul_(scale)

        old, old_values = new() - 3, new()
        # Responses of different lengths, padded on the right.
        lengths = torch.randint(columns // 2, columns + 1, (rows, 1), generator=generator, device=device)
        drawn = {
            "logprobs": old + new(0.2), "old_logprobs": old, "advantages": new(), "values": old_values + new(0.2),
            "old_values": old_values, "returns": old_values + new(),
            "loss_mask": torch.arange(columns, device=device) < lengths,
        }  # fmt: skip
        if extras:
            drawn |= {"entropy": new().abs(), "ref_logprobs": old + new(0.2)}
        return drawn

    return inputs


def plain(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, values: torch.Tensor,
    old_values: torch.Tensor, returns: torch.Tensor, loss_mask: torch.Tensor, entropy: torch.Tensor | None = None,
    ref_logprobs: torch.Tensor | None = None, *, denominator: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The loss and its statistics as they are usually written: whole tensors, multiplied by the mask."""

    def mean(x: torch.Tensor) -> torch.Tensor:
        return (x * loss_mask).sum() / denominator

    change = logprobs - old_logprobs
    ratio = torch.exp(change)
    unclipped, clipped = -advantages * ratio, -advantages * torch.clamp(ratio, 0.8, 1.2)
    bounded = torch.clamp(values, old_values - 0.2, old_values + 0.2)
    error, bounded_error = (values - returns).square(), (bounded - returns).square()
    policy, value = mean(torch.maximum(unclipped, clipped)), 0.5 * mean(torch.maximum(error, bounded_error))
    loss = policy + CLIPS["vf_coef"] * value
    measured = [policy, value, mean((clipped > unclipped).float()), mean((bounded_error > error).float()),
                0.5 * mean(change.square()), mean(ratio)]
    if entropy is not None and ref_logprobs is not None:
        apart = ref_logprobs - logprobs
        bonus, kl = mean(entropy), mean(torch.exp(apart) - apart - 1)
        loss = loss - EXTRAS["entropy_coef"] * bonus + EXTRAS["kl_loss_coef"] * kl
        measured += [bonus, kl]
    return loss, torch.stack([m.detach() for m in measured])


def both_ways(loss_of: Callable[..., Sequence[torch.Tensor]]) -> Contender:
    """Forward, then backward from the loss; returns the loss and the gradients."""

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        leaves = {n: t.detach().requires_grad_(n in DIFFERENTIABLE) for n, t in inputs.items()}
        loss = loss_of(**leaves, denominator=float(0.75 * inputs["logprobs"].numel()))[0]
        loss.backward()
        return [loss.detach(), *(leaves[name].grad for name in DIFFERENTIABLE)]

    return contender


def cases(device: str) -> Sequence[Case]:
    """A minibatch of the paper's size, and a million tokens with and without the optional terms."""
    compiled = torch.compile(plain)
    found = []
    for rows, columns, extras in ((64, 256, False), (64, 1024, True), (1024, 1024, False), (1024, 1024, True)):
        options = {**CLIPS, **(EXTRAS if extras else {})}
        found.append(Case(
            f"{rows} x {columns}" + (" with entropy and KL" if extras else ""),
            draw(rows, columns, device, extras=extras),
            ours=both_ways(lambda options=options, **i: ops.ppo_loss(**i, **options)),
            rivals={"torch": both_ways(plain), "torch.compile": both_ways(compiled)},
            oracle=both_ways(lambda options=options, **i: ops.ppo_loss_oracle(**i, **options)),
            # Reads six tensors (eight with the optional ones) and the mask, writes two gradients.
            moved_bytes=(41 if extras else 33) * rows * columns,
            looser={"ulps": 2.0, "why_looser": "the loss is one number, and a rival's error in it can be 0 by luck"},
        ))  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    run("ppo_loss", cases, arguments)
