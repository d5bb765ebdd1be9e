"""masked_whiten's kernel: one launch, 9 bytes an element, whoever draws which tile; every broken word found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest
import torch

from instructgpt_fast import ops, simt
from python_tests.accuracy import compare, same_bits
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_masked_whiten
from python_tests.ops.suite import SCHEDULES, Inputs, New

TILE, MOST_KEPT = 4096, 3 * 4  # elements of a tile; tiles that one multiprocessor keeps


def traffic(inputs: Inputs) -> Mapping[str, Mapping[str, Bytes]]:
    """Every element once; of each tile three moments are written, and two of them read twice; four numbers a block."""
    count = inputs["x"].numel()
    tiles = -(-count // TILE)
    return {"masked_whiten": {
        "x": (4 * count, 0), "loss_mask": (count, 0), "output 0": (0, 4 * count),
        "scratch 0": (5 * 8 * tiles, 3 * 8 * tiles),
        "scratch 1": (8 * 16 * tiles, 16),  # each of a block's eight warps, and each block keeps one tile
    }}


def numbers(*shape: int, p: float = 0.7, shift: float = 0.0) -> Callable[[New], Inputs]:
    return lambda new: test_masked_whiten.numbers(new, *shape, p=p, shift=shift)


def off_the_boundary(new: New) -> Inputs:
    drawn = test_masked_whiten.numbers(new, 3, 71, shift=4.0)
    return {k: v.new_empty(v.numel() + 1)[1:].view(v.shape).copy_(v) for k, v in drawn.items()}


class TestMaskedWhitenKernels(KernelSuite):
    suite = test_masked_whiten.TestMaskedWhiten
    cases = (
        KernelCase("a part of a tile", numbers(2, 120, shift=3.0), options={"shift_mean": False}),
        KernelCase("off the boundary", off_the_boundary),
        KernelCase("four tiles", numbers(4, TILE, shift=9.0), traffic=traffic),
        KernelCase("two tiles a block", numbers(5, TILE - 3), multiprocessors=1),
        KernelCase("more than is kept", numbers(MOST_KEPT * TILE + 40), multiprocessors=1),
    )
    equivalent: ClassVar = dict.fromkeys(
        (("shuffle_wrong_lane", "sum = warp_sum(sum)"), ("shuffle_wrong_lane", "const float centre = shuffle(mean")),
        "differences may be taken from any number near the mean: what it is off is added again",
    )


@pytest.fixture(autouse=True)
def _needs_the_emulator() -> None:
    if not simt.available():
        pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")


def test_what_is_not_kept_is_read_again() -> None:
    """Four spans for three blocks: one span of four tiles is read twice."""
    count = MOST_KEPT * TILE + 40
    inputs = test_masked_whiten.numbers(New(torch.float32), count)
    with simt.executing(multiprocessors=1, accounting=True) as run:
        ops.masked_whiten(**inputs)
    (launch,) = run.launches
    assert launch.buffers["x"].loaded_bytes in (4 * (count + 4 * TILE), 4 * (count + 40))
    assert launch.buffers["output 0"].stored_bytes == 4 * count


def test_bits_depend_neither_on_multiprocessors_nor_on_the_order_of_blocks() -> None:
    inputs = test_masked_whiten.numbers(New(torch.float32), 5, TILE + 8, shift=2.0)
    results = []
    for count, schedule in zip((1, 2, 3, 16), SCHEDULES, strict=True):
        with simt.executing(multiprocessors=count, **schedule):
            results.append(ops.masked_whiten(**inputs))
    assert all(same_bits(results[0], other) for other in results[1:])


@pytest.mark.parametrize("shift", [1e3, -1e6])
def test_a_mean_far_from_zero_costs_nothing(shift: float) -> None:
    """Tiles whose own means differ, all far from zero, one of them without a counted element."""
    inputs = test_masked_whiten.numbers(New(torch.float32), 4, TILE, shift=shift)
    inputs["x"] += torch.arange(4)[:, None] * 3
    inputs["loss_mask"][1] = False
    with simt.executing():
        white = ops.masked_whiten(**inputs)
    oracle = ops.masked_whiten_oracle(inputs["x"].double(), inputs["loss_mask"])
    compare(white, oracle, oracle.float(), ulps=2.0, why_looser="the yardstick is the oracle, rounded")
