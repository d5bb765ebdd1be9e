"""The kernels of invariant_linear: what they move, in every order of their threads, broken at every word; and the bits.

Which tile of the tensor cores serves a call hangs on its rows and outputs, and on the device: a tile of [rows, outputs]
is taken where it gives enough of the multiprocessors work. The cases choose it by the number of multiprocessors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from instructgpt_fast import simt
from instructgpt_fast.ops.invariant_linear import invariant_linear
from python_tests.accuracy import same_bits
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_invariant_linear as op_tests
from python_tests.ops.suite import Inputs, New

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
FEW, MANY = 1, 1000  # multiprocessors: the largest tile that the rows fill; the smallest there is
layer = op_tests.layer

Traffic = Mapping[str, Mapping[str, Bytes]]


def traffic_of(inputs: Inputs, rows: int, outputs: int, sharers: int, x_readers: int, size: int | None) -> Traffic:
    """The weight once for each tile of `rows`; x `x_readers` times for each tile of `outputs`.

    A warp writes 16 outputs of two rows at a time, and `sharers` warps share the pairs of rows of a tile: each that has
    one asks for its bias.
    """
    x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
    count, element = x.shape[0], x.element_size()
    row_tiles = [min(rows, count - first) for first in range(0, count, rows)]
    return {"invariant_linear" if size is None else "invariant_linear_out": {
        "weight": (len(row_tiles) * weight.numel() * element, 0),
        "x": (ceil(weight.shape[0] / outputs) * x_readers * x.numel() * element, 0),
        "bias": (sum(min(sharers, ceil(tile / 2)) for tile in row_tiles) * bias.numel() * element, 0),
        "output 0" if size is None else "out": (0, count * weight.shape[0] * (size or element)),
    }}


def mma(rows: int, outputs: int, size: int | None = None) -> Callable[[Inputs], Traffic]:
    """Eight warps, of which a fragment of 16 outputs has its share."""
    return lambda inputs: traffic_of(inputs, rows, outputs, 8 // (outputs // 16), 1, size)


def general(rows: int) -> Callable[[Inputs], Traffic]:
    """Four warps, each of which reads x by itself."""
    return lambda inputs: traffic_of(inputs, rows, 16, 4, 4, None)


def case(name: str, inputs: Callable[[New], Inputs], dtype: torch.dtype, multiprocessors: int = FEW,
         traffic: Callable[[Inputs], Traffic] | None = None, *, architecture: int = 80, **options: Any) -> KernelCase:
    return KernelCase(name, inputs, dtype, options, traffic, multiprocessors, architecture)


class TestInvariantLinearKernels(KernelSuite):
    suite = op_tests.TestInvariantLinear
    cases = (
        case("8 rows", layer(5, 336, 32), BF16, MANY, mma(8, 16)),
        case("8 rows, more steps than stages", layer(2, 2320, 16), F16, MANY, mma(8, 16)),
        case("16 rows", layer(11, 176, 48), F16, FEW, mma(16, 32)),
        case("32 rows, two tiles of them", layer(35, 848, 64), BF16, 7, mma(32, 32)),
        case("32 rows, wide", layer(35, 48, 64), F16, FEW, mma(32, 64), architecture=86),
        case("64 rows", layer(39, 560, 64), BF16, FEW, mma(64, 64)),
        case("64 rows, into float32", layer(64, 32, 80), F16, FEW, mma(64, 64, 4), buffered=True),
        case("rows and outputs left over", layer(67, 40, 9), BF16),
        case("without bias", layer(3, 24, 5, bias=False), BF16),
        case("f32, one row", layer(1, 272, 32), F32, FEW, general(1)),
        case("f32, rows left over", layer(11, 144, 32), F32, FEW, general(8)),
        case("f32, outputs left over", layer(9, 12, 6), F32),
        case("f32, elements one by one", layer(2, 301, 19, bias=False), F32),
        case("elements one by one", layer(9, 37, 6), BF16),
        case("elements one by one, into float32", layer(2, 33, 3), F16, buffered=True),
    )
    equivalent: ClassVar = {}


def emulated(inputs: Inputs, **options: Any) -> tuple[Tensor, simt.Run]:
    with simt.executing(**options) as run:
        y = invariant_linear(**inputs)
    assert not run.not_emulated
    return y, run


def with_rows(inputs: Inputs, rows: slice | Tensor) -> Inputs:
    return {**inputs, "x": inputs["x"][rows]}


def moved(tensor: Tensor, elements: int) -> Tensor:
    """The same values, `elements` elements behind a 16-byte boundary."""
    room = torch.empty(tensor.numel() + elements, dtype=tensor.dtype)[elements:].view(tensor.shape)
    return room.copy_(tensor)


# Rows, outputs, multiprocessors, architecture -> the tile that serves them.
TILES = {
    (1, 1600, 132, 90): (8, 16), (2, 6400, 132, 90): (8, 16), (8, 1600, 132, 90): (8, 16), (8, 4800, 132, 90): (16, 32),
    (2, 50257, 132, 90): (8, 16), (9, 768, 132, 90): (8, 16),
    (16, 1600, 132, 90): (16, 32), (32, 1600, 132, 90): (32, 32), (32, 4800, 132, 90): (32, 64),
    (64, 4800, 132, 90): (64, 64), (64, 1600, 132, 90): (32, 64), (64, 4800, 108, 80): (64, 64),
    (64, 4800, 128, 89): (32, 64), (64, 4800, 170, 120): (32, 64), (300, 768, 132, 100): (64, 64),
}  # fmt: skip


@pytest.mark.parametrize("call", TILES, ids=str)
def test_the_tile_of_a_call(call: tuple[int, int, int, int]) -> None:
    """By the blocks that a launch without inputs has, and the shared memory that its tile takes."""
    count, outputs, multiprocessors, architecture = call
    inputs = layer(count, 0, outputs)(New(BF16))
    _, run = emulated(inputs, multiprocessors=multiprocessors, architecture=architecture, accounting=True)
    rows, wide = TILES[call]
    (launch,) = run.launches
    assert (launch.kernel, launch.block) == ("invariant_linear_mma", (256, 1))
    assert launch.grid == (ceil(count / rows) * ceil(outputs / wide), 1)
    assert launch.dynamic_shared_bytes == (128 if rows == 64 else 96) * 1024


@pytest.mark.parametrize("dtype, inputs", [(F32, 20), (F32, 301), (BF16, 872), (F16, 40), (BF16, 37)], ids=str)
def test_a_row_has_the_same_bits_in_every_tile(dtype: torch.dtype, inputs: int) -> None:
    """Alone, among others, in any number and order of rows, on any device."""
    drawn = layer(70, inputs, 35)(New(dtype))
    wanted, _ = emulated(drawn, multiprocessors=FEW)
    kernels = set()
    for count in (1, 2, 3, 9, 17, 33, 65):
        for device in ({"multiprocessors": FEW}, {"multiprocessors": 7}, {"multiprocessors": MANY},
                       {"multiprocessors": FEW, "architecture": 86}):
            y, run = emulated(with_rows(drawn, slice(count)), **device, accounting=True)
            assert same_bits(y, wanted[:count]), f"{count} rows, {device}"
            kernels.add((run.launches[0].kernel, run.launches[0].grid))
    for row in (1, 8, 38, 69):
        alone, _ = emulated(with_rows(drawn, slice(row, row + 1)))
        assert same_bits(alone, wanted[row : row + 1]), f"row {row}"
    order = torch.randperm(70, generator=torch.Generator().manual_seed(3))
    shuffled, _ = emulated(with_rows(drawn, order))
    assert same_bits(shuffled, wanted[order])
    assert len(kernels) >= (8 if dtype != F32 and inputs % 8 == 0 else 4), sorted(kernels)


@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
def test_an_output_has_the_same_bits_among_any_outputs(dtype: torch.dtype) -> None:
    drawn = layer(5, 96, 70)(New(dtype))
    wanted, _ = emulated(drawn)
    for first, last in ((0, 1), (3, 20), (17, 50), (69, 70)):
        some = {"x": drawn["x"], "weight": drawn["weight"][first:last], "bias": drawn["bias"][first:last]}
        assert same_bits(emulated(some)[0], wanted[:, first:last])


@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@pytest.mark.parametrize("inputs", [72, 76, 75])
def test_bits_do_not_depend_on_where_tensors_stand(dtype: torch.dtype, inputs: int) -> None:
    """And what stands on no 16 bytes is copied only where its kernel reads nothing else."""
    drawn = layer(4, inputs, 18)(New(dtype))
    wanted, _ = emulated(drawn)
    for elements in (1, 4, 8):
        for names in (("x",), ("weight",), ("x", "weight", "bias")):
            elsewhere = {**drawn, **{name: moved(drawn[name], elements) for name in names}}
            out = moved(torch.full((4, 18), torch.nan, dtype=dtype), elements)
            y, _ = emulated({**elsewhere, "out": out})
            assert y is out and same_bits(out, wanted), f"{names} by {elements}"


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_a_bad_number_stays_in_its_row_or_its_output(dtype: torch.dtype) -> None:
    """Infinity in a row, NaN in a weight: nothing changes beside them, in the same tile either."""
    drawn = layer(19, 40, 21)(New(dtype))
    clean, _ = emulated(drawn)
    drawn["x"][7, 39], drawn["weight"][20, 3] = torch.inf, torch.nan
    y, _ = emulated(drawn)
    rows, outputs = torch.arange(19) != 7, torch.arange(21) != 20
    assert not bool(y[7].isfinite().any()) and bool(y[:, 20].isnan().all())
    assert same_bits(y[rows][:, outputs], clean[rows][:, outputs])
