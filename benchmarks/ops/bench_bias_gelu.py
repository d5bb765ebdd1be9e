"""bias_gelu beside PyTorch's addition and GELU: both forms, forward alone and with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops


def draw(rows: int, width: int, dtype: torch.dtype, device: str, approximate: str, *, grad: bool
         ) -> Callable[[int], Inputs]:
    """x and bias, and a gradient for the output."""

    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        shapes = {"x": (rows, width), "bias": (width,), "gradient": (rows, width)}
        drawn = {
            name: torch.randn(shape, generator=generator, device=device).to(dtype) for name, shape in shapes.items()
        }
        return {**drawn, "approximate": approximate, "grad": grad}

    return inputs


def evaluated(function: Callable[..., Tensor]) -> Contender:
    """The contender: y and, where asked for, the gradients of x and bias."""

    def contender(inputs: Inputs) -> Sequence[Tensor]:
        x, bias = (inputs[name].detach().requires_grad_(inputs["grad"]) for name in ("x", "bias"))
        y = function(x, bias, approximate=inputs["approximate"])
        return [y.detach(), *(torch.autograd.grad(y, (x, bias), inputs["gradient"]) if inputs["grad"] else ())]

    return contender


def plain(x: Tensor, bias: Tensor, *, approximate: str) -> Tensor:
    return F.gelu(x + bias, approximate=approximate)


def cases(device: str) -> Sequence[Case]:
    """The tanh form of GPT at two widths (on a GPU those of GPT-2 124M and 1558M), the exact form at one."""
    rows, narrow, wide = (16384, 3072, 6400) if device == "cuda" else (2048, 1024, 3072)
    found = []
    for width, approximate in ((narrow, "tanh"), (wide, "tanh"), (narrow, "none")):
        for dtype in (torch.float32, torch.bfloat16):
            for grad in (False, True):
                name = f"{rows} x {width} {approximate} {str(dtype).removeprefix('torch.')}"
                found.append(Case(
                    name=name + (" grad" if grad else ""),
                    draw=draw(rows, width, dtype, device, approximate, grad=grad),
                    draw_check=draw(300, width, dtype, device, approximate, grad=grad),
                    ours=evaluated(ops.bias_gelu),
                    rivals={"plain": evaluated(plain)},
                    oracle=evaluated(ops.bias_gelu_oracle),
                    moved_bytes=float(rows * width * dtype.itemsize * (5 if grad else 2)),
                    dtype=dtype,
                ))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    run("bias_gelu", cases, arguments)
