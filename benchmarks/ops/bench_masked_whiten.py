"""masked_whiten beside masked means in plain PyTorch, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.op_benchmark import Case, Inputs, run
from instructgpt_fast import ops

BYTES_PER_ELEMENT = 9  # reads x and the mask, writes y


def draw(rows: int, columns: int, device: str) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        x = torch.randn(rows, columns, generator=generator, device=device)
        # Responses of different lengths, padded on the right.
        lengths = torch.randint(columns // 2, columns + 1, (rows, 1), generator=generator, device=device)
        loss_mask = torch.arange(columns, device=device) < lengths
        return {"x": x, "loss_mask": loss_mask}

    return inputs


def plain(inputs: Inputs) -> Sequence[torch.Tensor]:
    """Mean and variance by masked sums."""
    x, mask = inputs["x"], inputs["loss_mask"]
    count = mask.sum()
    mean = (x * mask).sum() / count
    centred = x - mean
    variance = (centred.square() * mask).sum() / count
    return [centred * torch.rsqrt(variance + 1e-8) * mask]


def cases(device: str) -> Sequence[Case]:
    """A minibatch, a batch of the paper's size, and four million numbers."""
    compiled = torch.compile(plain)
    return [
        Case(
            f"{rows} x {columns}",
            draw(rows, columns, device),
            ours=lambda i: [ops.masked_whiten(**i)],
            rivals={"torch": plain, "torch.compile": compiled},
            oracle=lambda i: [ops.masked_whiten_oracle(**i)],
            moved_bytes=BYTES_PER_ELEMENT * rows * columns,
        )
        for rows, columns in ((64, 256), (512, 1024), (2048, 2048))
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    run("masked_whiten", cases, arguments)
