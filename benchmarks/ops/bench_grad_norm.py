"""grad_norm beside PyTorch's norms over the gradients of a GPT: foreach, one tensor at a time, compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from benchmarks.ops.bench_adamw import LARGE, shapes_of, sizes
from instructgpt_fast import ops


def draw(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, device: str) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        return {"tensors": [torch.randn(shape, generator=generator, device=device).to(dtype) for shape in shapes]}

    return inputs


def foreach(inputs: Inputs) -> Sequence[torch.Tensor]:
    """What clip_grad_norm_ does before it clips."""
    return [torch.nn.utils.get_total_norm(inputs["tensors"])]


def one_by_one(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t.float()) for t in tensors]))


def cases(device: str) -> list[Case]:
    found = []
    for label, size in sizes(device).items():
        shapes = shapes_of(*size)
        elements = sum(torch.Size(shape).numel() for shape in shapes)
        rivals: dict[str, Contender] = {"plain": foreach}
        if device == "cuda" and elements < LARGE:  # compiling for the tensors of the largest takes minutes
            compiled = torch.compile(one_by_one)
            rivals["torch.compile"] = lambda i, compiled=compiled: [compiled(i["tensors"])]
        for dtype in (torch.float32, torch.bfloat16):
            found.append(
                Case(
                    name=f"{label}, {str(dtype).removeprefix('torch.')}",
                    draw=draw(shapes, dtype, device),
                    ours=lambda i: [ops.grad_norm(i["tensors"])],
                    rivals=rivals,
                    oracle=lambda i: [ops.grad_norm_oracle(i["tensors"])],
                    # In float64 the largest would not fit beside its copy.
                    draw_check=draw(shapes_of(256, 4, 8192), dtype, device),
                    moved_bytes=float(elements * dtype.itemsize),
                )
            )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    run("grad_norm", cases, arguments)
