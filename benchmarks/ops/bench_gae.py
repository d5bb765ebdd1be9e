"""gae, alone and with the whitening of its advantages, beside plain PyTorch.

Rivals: the loop over columns, the same turned so that a column is contiguous, and log2(columns) steps over whole
tensors, eager and compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops
from instructgpt_fast.ops import masked_whiten_oracle

BYTES_PER_TOKEN = 17  # reads rewards, values, mask; writes advantages, returns


def draw(rows: int, columns: int, device: str) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        rewards, values = (torch.randn(rows, columns, generator=generator, device=device) for _ in range(2))
        # Responses of different lengths, padded on the right.
        lengths = torch.randint(columns // 2, columns + 1, (rows, 1), generator=generator, device=device)
        loss_mask = torch.arange(columns, device=device) < lengths
        return {"rewards": rewards, "values": values, "loss_mask": loss_mask}

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


def doubling(rewards: torch.Tensor, values: torch.Tensor, loss_mask: torch.Tensor) -> Sequence[torch.Tensor]:
    """The recursion as maps A -> b + d A that are composed in twos, fours, eights ... along the rows."""
    columns = rewards.shape[1]
    place = torch.arange(columns, device=rewards.device)
    here = torch.where(loss_mask, place, columns)
    after = torch.nn.functional.pad(here.flip(1).cummin(1).values.flip(1)[:, 1:], (0, 1), value=columns)
    next_value = torch.nn.functional.pad(values, (0, 1)).gather(1, after)
    b = torch.where(loss_mask, rewards + next_value - values, torch.zeros_like(values))
    d = torch.where(loss_mask, 0.95, torch.ones_like(values))
    step = 1
    while step < columns:
        b = b + d * torch.nn.functional.pad(b[:, step:], (0, step))
        d = d * torch.nn.functional.pad(d[:, step:], (0, step), value=1.0)
        step *= 2
    zero = torch.zeros_like(values)
    return torch.where(loss_mask, b, zero), torch.where(loss_mask, b + values, zero)


def whitened(of: Contender) -> Contender:
    """The same with its advantages whitened by plain masked means."""

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        advantages, returns = of(inputs)
        return [masked_whiten_oracle(advantages, inputs["loss_mask"]), returns]

    return contender


def ours_whitened(inputs: Inputs) -> Sequence[torch.Tensor]:
    advantages, returns = ops.gae(**inputs)
    return [ops.masked_whiten(advantages, inputs["loss_mask"]), returns]


def cases(device: str) -> Sequence[Case]:
    """A minibatch, a batch of the paper's size, and long rows; each with and without whitening."""

    def loop(inputs: Inputs) -> Sequence[torch.Tensor]:
        return ops.gae_oracle(**inputs)

    def doubled(inputs: Inputs) -> Sequence[torch.Tensor]:
        return doubling(**inputs)

    rivals: dict[str, Contender] = {"torch loop": loop, "torch loop, turned": turned, "torch doubling": doubled}
    found = []
    for rows, columns in ((64, 256), (512, 1024), (2048, 2048)):
        for whitening in (False, True):
            these = {name: whitened(rival) if whitening else rival for name, rival in rivals.items()}
            these["torch.compile doubling"] = torch.compile(these["torch doubling"])
            found.append(Case(
                f"{rows} x {columns}" + (" whitened" if whitening else ""),
                draw(rows, columns, device),
                ours=ours_whitened if whitening else lambda i: ops.gae(**i),
                rivals=these,
                oracle=whitened(loop) if whitening else loop,
                # Whitening could stay on the chip: the least that the work takes is the same with it.
                moved_bytes=BYTES_PER_TOKEN * rows * columns,
            ))  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    run("gae", cases, arguments)
