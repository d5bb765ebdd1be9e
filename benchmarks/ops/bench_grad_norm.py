"""grad_norm beside torch.nn.utils.get_total_norm over the gradients of a GPT."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.op_benchmark import Case, Inputs, run
from benchmarks.ops.bench_adamw import shapes_of
from instructgpt_fast import ops


def draw(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, device: str) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        return {"tensors": [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]}

    return inputs


def plain(inputs: Inputs) -> Sequence[torch.Tensor]:
    return [torch.nn.utils.get_total_norm(inputs["tensors"])]


def cases(device: str) -> list[Case]:
    found = []
    for label, size in {"4 x 256, 5 M": (256, 4, 8192), "12 x 512, 42 M": (512, 12, 8192)}.items():
        shapes = shapes_of(*size)
        elements = sum(torch.Size(shape).numel() for shape in shapes)
        for dtype in (torch.float32, torch.bfloat16):
            found.append(
                Case(
                    name=f"{label}, {str(dtype).removeprefix('torch.')}",
                    draw=draw(shapes, dtype, device),
                    ours=lambda i: [ops.grad_norm(i["tensors"])],
                    rivals={"plain": plain},
                    oracle=lambda i: [ops.grad_norm_oracle(i["tensors"])],
                    moved_bytes=float(elements * dtype.itemsize),
                )
            )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    run("grad_norm", cases, arguments)
