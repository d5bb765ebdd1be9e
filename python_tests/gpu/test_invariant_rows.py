"""invariant_linear's rows beside other rows on a GPU, where tensor cores round in their own way; and in a CUDA graph.

The emulator rounds each product by itself: that a place in a tile changes nothing can be shown on a GPU alone.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instructgpt_fast.ops import _library
from instructgpt_fast.ops.invariant_linear import invariant_linear
from python_tests.accuracy import same_bits

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    pytest.mark.skipif("invariant_linear" not in _library.CUDA_OPERATORS, reason="this build has no CUDA kernels"),
]
Linear = Callable[[Tensor, Tensor, Tensor], Tensor]


def draw(inputs: int, outputs: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """70 rows, a weight and a bias."""
    generator = torch.Generator(device).manual_seed(inputs + outputs)
    shapes = ((70, inputs), (outputs, inputs), (outputs,))
    x, weight, bias = (torch.randn(shape, generator=generator, device=device).to(dtype) for shape in shapes)
    return x, weight, bias


def disagreements(linear: Linear, inputs: int, outputs: int, dtype: torch.dtype, device: str) -> list[str]:
    """How often the rows are computed with other bits than all at once: fewer of them, alone, in another order."""
    x, weight, bias = draw(inputs, outputs, dtype, device)
    together = linear(x, weight, bias)
    found = [f"{rows} rows" for rows in range(1, 70) if not same_bits(linear(x[:rows], weight, bias), together[:rows])]
    found += [f"row {m} alone" for m in range(70) if not same_bits(linear(x[m:m + 1], weight, bias), together[m:m + 1])]
    order = torch.randperm(70, generator=torch.Generator().manual_seed(1)).to(device)
    return found if same_bits(linear(x[order], weight, bias), together[order]) else [*found, "another order"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("inputs, outputs", [(1600, 4800), (6400, 1600), (768, 50257), (72, 9), (37, 130)])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_gpu)])
def test_rows_have_the_same_bits_on_a_gpu(inputs: int, outputs: int, dtype: torch.dtype, device: str) -> None:
    assert disagreements(invariant_linear, inputs, outputs, dtype, device) == []


def test_rows_that_depend_on_their_number_are_found() -> None:
    """The same code with the CPU in the GPU's place, and with a layer that takes another path for few rows."""
    def forked(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        half = x.shape[1] // 2
        if len(x) > 5:
            return invariant_linear(x, weight, bias)
        return invariant_linear(x[:, :half], weight[:, :half], bias) + invariant_linear(x[:, half:], weight[:, half:])

    assert disagreements(invariant_linear, 72, 9, torch.float32, "cpu") == []
    found = disagreements(forked, 72, 9, torch.float32, "cpu")
    assert {"1 rows", "5 rows"} <= set(found) and "6 rows" not in found


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_gpu)])
def test_a_captured_layer_is_replayed(device: str) -> None:
    """Nothing waits for the host: logits into an f32 buffer, of rows that change from step to step."""
    x, weight, bias = draw(1600, 50257, torch.bfloat16, device)
    row, logits = x[:1].clone(), torch.empty(1, 50257, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        invariant_linear(row, weight, bias, out=logits)
    for m in (0, 7, 69):
        row.copy_(x[m:m + 1])
        graph.replay()
        assert same_bits(logits, invariant_linear(x[m:m + 1], weight, bias, out=torch.empty_like(logits)))
