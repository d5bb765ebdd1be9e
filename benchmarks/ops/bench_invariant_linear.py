"""invariant_linear beside PyTorch's linear layer: the layers of a decoder from one row to a chunk of a prompt.

Bytes: x, the weight and the result once. Inputs rotate through three sets, so that a weight of some megabytes is not in
the core's own caches from the call before; in the ones that cores share it may be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.op_benchmark import Case, Inputs, run
from instructgpt_fast import ops

# On a CPU: inputs and outputs of the layers of models 256 and 768 wide, and the output layer of a GPT-2 vocabulary.
CPU_LAYERS = ((256, 768), (256, 1024), (768, 768), (768, 3072), (3072, 768))
CPU_ROWS = (1, 4, 16, 32, 64, 256)
OUTPUT_LAYERS = ((256, 50257), (768, 50257))
OUTPUT_ROWS = (1, 8, 32)
# On a GPU: those of GPT-2 1558M and of GPT-3 6.7B, where a weight is far larger than the caches.
GPU_LAYERS = ((1600, 4800), (1600, 6400), (6400, 1600), (4096, 12288), (16384, 4096), (1600, 50257))
GPU_ROWS = (1, 8, 32, 64)


def draw(rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: str) -> Callable[[int], Inputs]:
    """x, weight and bias."""

    def drawn(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        shapes = {"x": (rows, inputs), "weight": (outputs, inputs), "bias": (outputs,)}
        return {
            name: torch.randn(shape, generator=generator, device=device).to(dtype) for name, shape in shapes.items()
        }

    return drawn


def called(function: Callable[..., Tensor]) -> Callable[[Inputs], Sequence[Tensor]]:
    """The contender: y alone."""
    return lambda inputs: [function(inputs["x"], inputs["weight"], inputs["bias"])]


def sizes(device: str) -> list[tuple[int, int, int]]:
    """Rows, inputs and outputs of every case."""
    if device == "cuda":
        return [(rows, *layer) for layer in GPU_LAYERS for rows in GPU_ROWS]
    layers = [(rows, *layer) for layer in CPU_LAYERS for rows in CPU_ROWS]
    return layers + [(rows, *layer) for layer in OUTPUT_LAYERS for rows in OUTPUT_ROWS]


def cases(device: str) -> Sequence[Case]:
    """Every size, in f32 and bf16 on the CPU, in bf16 on a GPU."""
    found = []
    for dtype in (torch.float32, torch.bfloat16) if device == "cpu" else (torch.bfloat16,):
        for rows, inputs, outputs in sizes(device):
            found.append(Case(
                name=f"{rows} x {inputs} to {outputs} {str(dtype).removeprefix('torch.')}",
                draw=draw(rows, inputs, outputs, dtype, device),
                ours=called(ops.invariant_linear),
                rivals={"linear": called(F.linear)},
                oracle=called(ops.invariant_linear_oracle),
                moved_bytes=float((rows * inputs + outputs * inputs + rows * outputs) * dtype.itemsize),
                flops=2.0 * rows * inputs * outputs,
                dtype=dtype,
            ))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    with torch.no_grad():
        run("invariant_linear", cases, arguments)
