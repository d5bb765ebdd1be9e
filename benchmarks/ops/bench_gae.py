"""gae beside the loop over columns in plain PyTorch: on rows as they lie, and turned so that a column is contiguous."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.op_benchmark import Case, Inputs, run
from instructgpt_fast import ops

BYTES_PER_TOKEN = 17  # reads rewards, values, mask; writes advantages, returns


def draw(rows: int, columns: int, device: str) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        rewards, values = (torch.randn(rows, columns, generator=generator) for _ in range(2))
        # Responses of different lengths, padded on the right.
        loss_mask = torch.arange(columns) < torch.randint(columns // 2, columns + 1, (rows, 1), generator=generator)
        return {"rewards": rewards.to(device), "values": values.to(device), "loss_mask": loss_mask.to(device)}

    return inputs


def turned(inputs: Inputs) -> Sequence[torch.Tensor]:
    """The same recursion with time as the first dimension, where each step reads contiguous memory."""
    rewards, values, mask = (inputs[name].t().contiguous() for name in ("rewards", "values", "loss_mask"))
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        advantage = rewards[t] + next_value - values[t] + 0.95 * next_advantage
        advantages[t] = torch.where(mask[t], advantage, advantages[t])
        next_value = torch.where(mask[t], values[t], next_value)
        next_advantage = torch.where(mask[t], advantage, next_advantage)
    return advantages.t(), torch.where(mask, advantages + values, torch.zeros_like(values)).t()


def cases(device: str) -> Sequence[Case]:
    """A minibatch, a batch of the paper's size, and long rows."""
    return [
        Case(
            f"{rows} x {columns}",
            draw(rows, columns, device),
            ours=lambda i: ops.gae(**i),
            rivals={"torch loop": lambda i: ops.gae_oracle(**i), "torch loop, turned": turned},
            oracle=lambda i: ops.gae_oracle(**i),
            moved_bytes=BYTES_PER_TOKEN * rows * columns,
        )
        for rows, columns in ((64, 256), (512, 1024), (2048, 2048))
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    run("gae", cases, arguments)
