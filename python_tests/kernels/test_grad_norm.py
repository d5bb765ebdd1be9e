"""grad_norm's kernel: every element read once, any mixture of dtypes, squares that float32 cannot hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch

from instructgpt_fast import ops, simt
from python_tests.accuracy import same_bits
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_grad_norm
from python_tests.ops.suite import Inputs, New

CHUNK, WARPS, ROW_BYTES, SMS = 32768, 8, 32, 1


def traffic(inputs: Inputs) -> Mapping[str, Mapping[str, Bytes]]:
    """The elements, and for each chunk its row, which each warp reads, and its sum."""
    tensors = [t for t in inputs["tensors"] if t.numel()]
    chunks = sum(-(-t.numel() // CHUNK) for t in tensors)
    blocks = min(chunks, 4 * SMS)
    table = WARPS * (ROW_BYTES * chunks + 4 * len(tensors) * blocks)
    return {
        "grad_norm": {
            **{f"tensors[{i}]": (t.nbytes, 0) for i, t in enumerate(inputs["tensors"])},
            "output 0": (0, 4),
            "scratch 0": (table, ROW_BYTES * len(tensors) + 8 * -(-len(tensors) // 2)),
            "scratch 1": (8 * chunks, 8 * chunks),
        }
    }


def mixed(new: New) -> Inputs:
    return {"tensors": [new(300), new.float32(33_000), new(17).half(), new(64).bfloat16(), new(2, 1028), new(9)]}


def behind_a_boundary(new: New) -> Inputs:
    return {"tensors": [new(600)[1:], new(41)[1:].half(), new.float32(10)[3:]]}


class TestGradNormKernels(KernelSuite):
    suite = test_grad_norm.TestGradNorm
    cases = (
        KernelCase("mixed dtypes", mixed, traffic=traffic, multiprocessors=SMS),
        KernelCase("bfloat16", lambda new: {"tensors": [new(40, 136), new(2052), new(0)]}, torch.bfloat16,
                   traffic=traffic, multiprocessors=SMS),
        KernelCase("unaligned", behind_a_boundary, multiprocessors=SMS),
        # More rows than a warp looks at at once, and more chunks than blocks.
        KernelCase("forty tensors", lambda new: {"tensors": [new(8 + i, shift=float(i)) for i in range(40)]},
                   torch.float16, multiprocessors=SMS),
    )
    equivalent: ClassVar = {
        ("drop_barrier", "all of this block's writes are made"): "thread 0 alone writes what the last block reads",
    }


@pytest.fixture(autouse=True)
def _needs_the_emulator() -> None:
    if not simt.available():
        pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")


def emulated(tensors: list[torch.Tensor], multiprocessors: int = 4) -> torch.Tensor:
    with simt.executing(multiprocessors=multiprocessors):
        return ops.grad_norm(tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("value", [3e38, 1e30, 3e18, 1e-16, 1e-19, 1e-30, 1e-38])
def test_squares_out_of_float32_range(value: float, dtype: torch.dtype) -> None:
    """The norm of 64 equal numbers is 8 times the number, in vectors and one by one."""
    tensor = torch.full((65,), value, dtype=dtype)
    for same in (tensor[:64], tensor[1:]):
        # Above float32's range there is infinity, here as on the CPU.
        torch.testing.assert_close(emulated([same]), (8 * tensor[0].double()).float(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 70])
def test_what_is_not_finite_shows(value: float, place: int) -> None:
    tensor = torch.ones(71)
    tensor[place] = value
    norm = emulated([torch.ones(5), tensor])
    assert norm.isnan() if math.isnan(value) else norm == math.inf


def test_large_beside_small() -> None:
    """Numbers of both ends in one thread's vectors: the small ones may vanish, the large ones may not."""
    tensor = torch.tensor([1e25, 1e-30, 2e25, 1e-45] * 8)
    expected = ops.grad_norm_oracle([tensor.double()]).float()
    torch.testing.assert_close(emulated([tensor]), expected, rtol=1e-6, atol=0.0)


def test_bits_do_not_depend_on_the_number_of_multiprocessors() -> None:
    tensors = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (70_000, 3, 40_001)]
    first = emulated(tensors, 1)
    assert all(same_bits(first, emulated(tensors, count)) for count in (2, 3))


@pytest.mark.parametrize("count", [600, pytest.param(4100, marks=pytest.mark.slow)])
def test_many_tensors(count: int) -> None:
    """More than the last block has threads, than one launch carries rows of, and than sums are under way together."""
    values = torch.randn(count, generator=torch.Generator().manual_seed(1))
    expected = ops.grad_norm_oracle([values.double()]).float()
    # A float32 square each: exact to 6e-8.
    torch.testing.assert_close(emulated([values[i : i + 1] for i in range(count)]), expected, rtol=1e-6, atol=0.0)
