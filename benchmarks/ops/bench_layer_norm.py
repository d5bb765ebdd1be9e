"""layer_norm beside PyTorch's: with and without a residual, forward alone and with gradients, at GPT widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops


def draw(rows: int, width: int, dtype: torch.dtype, device: str, *, grad: bool) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        shapes = {"x": (rows, width), "residual": (rows, width), "weight": (width,), "bias": (width,)}
        drawn = {name: torch.randn(shape, generator=generator).to(device, dtype) for name, shape in shapes.items()}
        return {**drawn, "grad": grad}

    return inputs


def evaluated(function: Callable[..., Any]) -> Contender:
    """The contender: y and x + residual and, where asked for, the gradients of the sum of both."""

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        names = ("x", "residual", "weight", "bias")
        x, residual, weight, bias = (inputs[name].detach().requires_grad_(inputs["grad"]) for name in names)
        y, summed = function(x, weight, bias, residual=residual)
        results = [y.detach(), summed.detach()]
        if inputs["grad"]:
            # y as its own gradient: with ones, the part that normalising takes away would be all there is.
            results += torch.autograd.grad((y, summed), (x, residual, weight, bias), (results[0], results[1]))
        return results

    return contender


def plain(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, residual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    summed = x + residual
    return F.layer_norm(summed, (x.shape[-1],), weight, bias), summed


def cases(device: str) -> list[Case]:
    found = []
    rows = 16384 if device == "cuda" else 2048
    for width in (256, 768, 1600):
        for dtype in (torch.float32, torch.bfloat16):
            for grad in (False, True):
                moved = rows * width * dtype.itemsize * (8 if grad else 4)
                found.append(
                    Case(
                        name=f"{rows} x {width} {str(dtype).removeprefix('torch.')}" + (" grad" if grad else ""),
                        draw=draw(rows, width, dtype, device, grad=grad),
                        draw_check=draw(100, width, dtype, device, grad=grad),
                        ours=evaluated(ops.layer_norm),
                        rivals={"plain": evaluated(plain)},
                        oracle=evaluated(ops.layer_norm_oracle),
                        moved_bytes=float(moved),
                        dtype=dtype,
                    )
                )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    run("layer_norm", cases, arguments)
