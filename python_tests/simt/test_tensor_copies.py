"""Tensor copies and bulk copies: what they move, and each rule broken by a kernel that breaks only it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instructgpt_fast import simt
from python_tests.simt.async_kernels import EVERY_ORDER, INPUT, assert_told, kernels_of, run

STAGE = "race between threads on byte \\d+ of the dynamic block"
FAULTS = {
    "read_early": (STAGE, "// too early"),
    "written_under_way": (STAGE, "// too early"),
    "brought_over_what_is_read": (STAGE, "// reads"),
    "source_written_again": (STAGE, "// before it was read"),
    "source_written_by_others": (STAGE, "if (lane_index() == 1)"),
    "waits_for_too_few": (STAGE, "// too early"),
    "not_committed": ("is not waited for at the end of the kernel", "ptx::store_tile<2>(a.out, {0, 0}, tile);"),
    "left_at_the_end": ("is not waited for at the end of the kernel", "ptx::add_tile<2>(a.added, {0, 0}, tile);"),
    "result_read_early": ("race between threads on new 0\\[5\\]", "load(a.output + 5)"),
    "sum_read_early": ("race between threads on new 1\\[7\\]", "load(a.sums + 7)"),
    "loaded_before_it_is_stored": ("race between threads on new 0\\[0\\]", "bring(tiles + kTileBytes, a.out"),
    "source_of_load_changes": ("race between threads on new 0\\[9\\]", "store(a.output + 9, 1.0f);"),
    "tile_misaligned": ("misaligned tile: it stands 512 bytes past a multiple of 1024", "tiles + kOffset"),
    "plain_tile_misaligned": ("misaligned tile: it stands 64 bytes past a multiple of 128", "tiles + kOffset"),
    "tile_past_the_end": ("out of bounds of shared memory: 128 bytes past the end", "tiles + kOffset"),
    "run_misaligned_in_shared": ("misaligned tile: it stands 8 bytes past a multiple of 16", "ptx::bulk_load("),
    "run_misaligned_in_global": ("a bulk copy of 64 bytes whose global address is 8 past", "ptx::bulk_load("),
    "run_of_odd_bytes": ("a bulk copy of 40 bytes", "ptx::bulk_load("),
    "run_past_the_end": ("out of bounds of global memory: 32 bytes past the end of input", "ptx::bulk_load("),
    "other_dimensions": ("a tile of 3 dimensions of a tensor of 2", "ptx::load_tile<3>("),
    "no_map": ("the tensor map is none that tensor_map\\(\\) made", "bring(tile, changed, 0, full);"),
    "tile_in_global_memory": ("a bulk copy whose tile is not in shared memory", "(a.output), a.in, 0, full);"),
    "beyond_the_buffer": ("out of bounds of global memory: (.|\n)*the last of input", "bring(tile, a.beyond"),
    "four_misaligned": ("misaligned access: 16 bytes at an address that is 8 past", "ptx::add_four(a.sums + 2"),
}
RIGHT = {"stores_right", "additions_right", "outside_right", "plain_right"}

pytestmark = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


def box(row: int, column: int) -> Tensor:
    """The 8 x 32 box of the input at a place that may lie outside; zeros there."""
    padded = torch.zeros(64 + 256, 32 + 64)
    padded[128 : 128 + 64, 32:64] = INPUT
    return padded[128 + row : 136 + row, 32 + column : 64 + column]


def test_every_kernel_is_tested() -> None:
    assert set(kernels_of("copies")) == set(FAULTS) | RIGHT


@pytest.mark.parametrize("kernel", FAULTS)
def test_a_broken_rule_is_named_with_its_place(kernel: str) -> None:
    assert_told("copies", kernel, *FAULTS[kernel])


@pytest.mark.parametrize("schedule, copies", EVERY_ORDER)
def test_right_kernels_are_not_accused(schedule: str, copies: str) -> None:
    with simt.executing(schedule=schedule, copies=copies, seed=6, architecture=90):
        for result in run("copies", "stores_right"):
            assert torch.equal(result, torch.arange(2048).float().reshape(64, 32))
        sums = run("copies", "additions_right")[1]
        assert torch.equal(sums[8:16].flatten(), 3 * torch.arange(1024, 1280).float())
        assert torch.count_nonzero(sums) == 256
        assert torch.equal(run("copies", "plain_right")[0].flatten()[:384], INPUT.flatten()[:384])


def test_what_lies_outside_arrives_as_zero_and_is_not_stored() -> None:
    """Tiles whose box begins before the tensor, ends behind it, or lies wholly outside, in rows and columns."""
    places = [(-3, 0), (60, 8), (8, -20), (100, 0)]
    for copies in ("lazy", "eager"):
        with simt.executing(copies=copies, architecture=90):
            output, stored = run("copies", "outside_right")
        assert torch.equal(output[:32], torch.cat([box(*place) for place in places]))
        expected = torch.zeros(64, 32)
        expected[:5] = INPUT[:5]
        expected[60:, 8:] = INPUT[60:, 8:]
        assert torch.equal(stored, expected)


def test_a_copy_counts_as_the_bytes_of_its_rows() -> None:
    """In the tensor alone: 5 whole rows, 4 of 24 columns, 8 of 12."""
    with simt.executing(accounting=True, architecture=90) as outside:
        run("copies", "outside_right")
    loads = outside.launches[0].buffers["input"]
    assert loads.loaded_bytes == 4 * (5 * 32 + 4 * 24 + 8 * 12)
    with simt.executing(accounting=True, architecture=90) as summed:
        run("copies", "additions_right")
    sums = summed.launches[0].buffers["output 1"]
    assert sums.atomic_bytes == 3 * 1024
    with simt.executing(accounting=True, architecture=90) as stored:
        run("copies", "stores_right")
    assert stored.launches[0].buffers["output 0"].stored_bytes == 8192


RULES = {
    "no tensor map: 1 dimensions, not 2 to 5": {"sizes": [32], "strides": [0], "box": [32]},
    "no tensor map: 6 dimensions, not 2 to 5": {"sizes": [32] * 6, "strides": [0] * 6, "box": [32] * 6},
    "the tensor does not stand on 16 bytes": {"offset": 8},
    "the size of dimension 1 is 0, not 1 to 2^32": {"sizes": [32, 0]},
    "the box has 257 elements of dimension 1, not 1 to 256": {"box": [32, 257]},
    "the box has 0 elements of dimension 1, not 1 to 256": {"box": [32, 0]},
    "the stride of dimension 1 is 136 bytes, not a multiple of 16": {"strides": [0, 136]},
    "the stride of dimension 1 is 1099511627776 bytes": {"strides": [0, 1 << 40]},
    "the box has rows of 56 bytes, not a multiple of 16": {"box": [14, 8], "swizzle": 0},
    "the box has rows of 64 bytes, its swizzle rows of 128": {"box": [16, 8]},
    "the box has rows of 256 bytes, its swizzle rows of 128": {"box": [64, 8]},
    "the box has rows of 128 bytes, its swizzle rows of 64": {"swizzle": 2},
}


@pytest.mark.parametrize("rule", RULES)
def test_a_tensor_map_that_breaks_a_rule(rule: str) -> None:
    """The same check stands before the driver's call (python_tests/device/test_tensor_map.py)."""
    shape = {"offset": 0, "sizes": [32, 64], "strides": [0, 128], "box": [32, 8], "swizzle": 3} | RULES[rule]
    with simt.executing(), pytest.raises(RuntimeError) as raised:
        torch.ops.instructgpt_fast.simt_tensor_map(INPUT, *shape.values())
    assert "simt_tensor_map: " in str(raised.value)
    assert rule in str(raised.value)


@pytest.mark.parametrize(("swizzle", "inner"), [(0, 8), (0, 256), (1, 8), (2, 16), (3, 32)])
def test_a_tensor_map_that_keeps_the_rules(swizzle: int, inner: int) -> None:
    with simt.executing():
        torch.ops.instructgpt_fast.simt_tensor_map(INPUT, 0, [32, 64], [0, 128], [inner, 256], swizzle)
