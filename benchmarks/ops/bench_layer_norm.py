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
        generator = torch.Generator(device).manual_seed(seed)
        shapes = {"x": (rows, width), "residual": (rows, width), "weight": (width,), "bias": (width,)}
        drawn = {
            name: torch.randn(shape, generator=generator, device=device).to(dtype) for name, shape in shapes.items()
        }
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


def draw_backward(rows: int, width: int, dtype: torch.dtype, device: str) -> Callable[[int], Inputs]:
    """What the gradient is made of: both gradients that arrive, the sum, its statistics, the weight."""

    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        shapes = {"dy": (rows, width), "dsummed": (rows, width), "summed": (rows, width), "weight": (width,)}
        drawn = {
            name: torch.randn(shape, generator=generator, device=device).to(dtype) for name, shape in shapes.items()
        }
        rest = drawn["summed"].float()
        rstd = torch.rsqrt(rest.var(-1, correction=0) + 1e-5)
        return {**drawn, "mean": rest.mean(-1), "rstd": rstd}

    return inputs


def our_backward(inputs: Inputs) -> Sequence[torch.Tensor]:
    """dx, dweight, dbias."""
    names = ("dy", "dsummed", "summed", "weight", "mean", "rstd")
    results: Sequence[torch.Tensor] = torch.ops.instructgpt_fast.layer_norm_backward(*(inputs[name] for name in names))
    return results


def plain_backward(inputs: Inputs) -> Sequence[torch.Tensor]:
    """The same by PyTorch's own operator and an addition."""
    weight, mean, rstd = inputs["weight"], inputs["mean"][:, None], inputs["rstd"][:, None]
    dx, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
        inputs["dy"], inputs["summed"], weight.shape, mean, rstd, weight, weight, [True, True, True]
    )
    return dx + inputs["dsummed"], dweight, dbias


def backward_cases(device: str) -> list[Case]:
    """The backward pass alone, at the widths of GPT-2."""
    return [
        Case(
            name=f"16384 x {width} {str(dtype).removeprefix('torch.')} backward",
            draw=draw_backward(16384, width, dtype, device),
            draw_check=draw_backward(100, width, dtype, device),
            ours=our_backward,
            rivals={"plain": plain_backward},
            oracle=plain_backward,
            moved_bytes=float(4 * 16384 * width * dtype.itemsize),
            dtype=dtype,
        )
        for width, dtype in ((768, torch.bfloat16), (1600, torch.bfloat16), (768, torch.float32))
    ]


def cases(device: str) -> list[Case]:
    found = backward_cases(device) if device == "cuda" else []
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
