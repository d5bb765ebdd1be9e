"""wgmma's rules: each is broken by a kernel that breaks only it, in csrc/simt/selftest, and named with its place."""

from __future__ import annotations

import re

import pytest
import torch

from instructgpt_fast import simt
from python_tests.house.tree import ROOT
from python_tests.simt import wgmma_layouts as layouts

SOURCES = tuple(f"csrc/simt/selftest/wgmma_{part}_cuda.cu" for part in ("faults", "tiles", "races"))
TEXTS = [(ROOT / source).read_text() for source in SOURCES]
# The order of a table is the number of the kernel.
KERNELS = [re.findall(r'^    \{"(\w+)", [\w +*]+, &\w+\},$', text, re.MULTILINE) for text in TEXTS]
SCHEDULES = ("forward", "reverse", "random", "preempting")
A_FEW_ORDERS = [("forward", "lazy"), ("reverse", "eager"), ("random", "random"), ("preempting", "lazy")]
EVERY_ORDER = [(schedule, copies) for schedule in SCHEDULES for copies in ("lazy", "eager", "random")]

# What a kernel is told, and the line it must be told of (a piece of it).
TOUCHED = "registers of a product are touched before it was waited for"
FENCE = "touched after the last wgmma_fence"
PRODUCT = "ptx::wgmma<bfloat16, 64>(sums, "
MULTIPLY = "multiply(p, "
FAULTS = {
    "missing_fence": ("a product without a wgmma_fence before it", PRODUCT),
    "sums_after_the_fence": (f"sums of a product {FENCE}", PRODUCT),
    "read_without_fence": (f"sums of a product {FENCE}: element 7", "ptx::wgmma<bfloat16, 64>(sums, b, a, false);"),
    "a_after_the_fence": (f"A in registers of a product {FENCE}", PRODUCT),
    "a_by_ldmatrix_after_the_fence": (f"A in registers of a product {FENCE}", PRODUCT),
    "missing_wait": (f"{TOUCHED}\n  thread", "store(p.output + thread_x(), sums[5]);"),
    "missing_commit": ("say wgmma_commit after the product", "store(p.output + thread_x(), sums[6]);"),
    "wait_for_too_few": (TOUCHED, "store(p.output + thread_x(), second[3]);"),
    "sums_written_early": ("writes sums[9]", "sums[9] = 0.0f;"),
    "a_changed_early": ("writes a[2]", "a[2] = 0;"),
    "sums_of_two_shapes": ("sums of another one of another shape", "reinterpret_cast<float(&)[kSums]>(sums)"),
    "a_out_of_sums_under_way": ("A in registers is the sums of a product under way", "ptx::wgmma<bfloat16, 64>(others"),
    "sums_in_shared_memory": ("sums of a product not in the thread's own registers", PRODUCT),
    "left_under_way": ("still under way at the end of the kernel", PRODUCT),
    "stride_no_multiple": ("a descriptor with leading 1024 and stride 136", MULTIPLY),
    "stride_beyond_the_array": ("leaves its array", MULTIPLY),
    "stride_too_small": ("the tile of B (leading 1024, stride 64, no swizzle) takes the same bytes", MULTIPLY),
    "leading_left_out": ("the tile of A (leading 0, stride 128, no swizzle) takes the same bytes", MULTIPLY),
    "leading_and_stride_exchanged": ("leaves its array", MULTIPLY),
    "distance_no_pattern": ("has a distance of 128 bytes between its patterns", MULTIPLY),
    "pattern_misplaced": ("begins 128 bytes past a multiple of 512", MULTIPLY),
    "beyond_the_row": ("begins 48 bytes into a row of 64 bytes and reads 32 of it", MULTIPLY),
    "wrong_transposition": ("takes the same bytes for several elements", "multiply<true>(p, "),
    "tile_misaligned": ("a tile that stands 8 past a multiple of 16 bytes", MULTIPLY),
    "moved_on_by_bytes": ("a descriptor is moved on by 8 bytes", MULTIPLY),
    "tile_in_global": ("a pointer outside shared memory is taken for one inside", MULTIPLY),
    "bits_that_mean_nothing": ("has bits that mean nothing", MULTIPLY),
    "outside_of_all_arrays": ("begins outside of the block's arrays", MULTIPLY),
    "a_warp_returns": ("early return", MULTIPLY),
    "a_warp_waits_elsewhere": ("deadlock", MULTIPLY),
    "a_lane_says_another_word": ("different words meet in one warpgroup", "ptx::wgmma_commit();"),
    "different_tiles": ("threads of one warpgroup say different products", MULTIPLY),
    "different_waits": ("threads of one warpgroup wait for different groups", "ptx::wgmma_wait<"),
    "warps_of_two_groups": ("early return", MULTIPLY),
    "half_a_group": ("a warpgroup has 128 threads, the block's last ones are 32", MULTIPLY),
}  # fmt: skip
RACE = "race between threads on byte"
RACES = {
    "not_yet_written": (RACE, "issue(sums, tiles);"),
    "missing_proxy_fence": ("no proxy fence between a thread's write", "issue(sums, tiles);"),
    "proxy_fence_of_one_thread": ("no proxy fence between a thread's write", "issue(sums, tiles);"),
    "stage_written_early": (RACE, "tiles[kTile + thread_x()] = 0;"),
    "stage_not_released": (RACE, "tiles[thread_x()] = 0;"),
    "stage_released_early": (RACE, "tiles[thread_x()] = 0;"),
    "written_after_too_short_a_wait": (RACE, "tiles[thread_x()] = 0;"),
    "seen_by_one_warp": (RACE, "issue(sums, tiles_of_block());"),
    "copy_under_way": ("bytes of an asynchronous copy are touched before it was waited for", "issue(sums, tiles);"),
}
RIGHT = ("products_right", "stage_released", "seen_by_all")

pytestmark = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


def table_of(kernel: str) -> int:
    return next(table for table, kernels in enumerate(KERNELS) if kernel in kernels)


def operands() -> torch.Tensor:
    """A and B, 64 x 16 each, small integers."""
    generator = torch.Generator().manual_seed(8)
    return torch.randint(-8, 9, (2, 64, 16), generator=generator).bfloat16()


def run(kernel: str) -> torch.Tensor:
    """The kernel's sums, [64, 64]."""
    places = torch.tensor(layouts.byte_places(False, 0, 1024, 128, 64)) // 2
    words = torch.empty(2, 1024, dtype=torch.int16)
    for image, values in zip(words, operands(), strict=True):
        image[places] = values.view(torch.int16)
    table = table_of(kernel)
    held = torch.ops.instructgpt_fast.simt_wgmma_fault(
        table, KERNELS[table].index(kernel), words.view(torch.int32).flatten()
    )
    index = torch.tensor([layouts.sum_places(thread, 64) for thread in range(128)])
    sums = torch.empty(64, 64)
    sums[index[..., 0], index[..., 1]] = held
    return sums


def test_every_kernel_is_tested() -> None:
    assert {kernel for kernels in KERNELS for kernel in kernels} == set(FAULTS) | set(RACES) | set(RIGHT)
    for text, kernels in zip(TEXTS, KERNELS, strict=True):
        assert len(re.findall(r"^IGF_KERNEL", text, re.MULTILINE)) == len(kernels)


@pytest.mark.parametrize("kernel", [*FAULTS, *RACES])
def test_a_broken_rule_is_named_with_its_place(kernel: str) -> None:
    """In all kinds of orders of threads; races also whenever the copies arrive."""
    rule, line = (FAULTS | RACES)[kernel]
    table = table_of(kernel)
    source, text = SOURCES[table], TEXTS[table]
    start = text.index(f" {kernel}(WgmmaFault p)")
    body = range(text[:start].count("\n") + 1, text[: text.index("\n}\n", start)].count("\n") + 2)
    for schedule, copies in EVERY_ORDER if kernel in RACES else A_FEW_ORDERS:
        with (
            simt.executing(schedule=schedule, copies=copies, seed=7, architecture=90),
            pytest.raises(simt.SimtError) as raised,
        ):
            run(kernel)
        message = str(raised.value)
        assert rule in message, f"{schedule}, {copies}: {message}"
        named = {int(number) for number in re.findall(rf"{source}:(\d+)", message)}
        lines = {number for number in named if number in body and line in text.splitlines()[number - 1]}
        assert lines, f"{schedule}, {copies}: no line of {kernel} with {line!r}: {message}"


@pytest.mark.parametrize("schedule, copies", EVERY_ORDER)
def test_right_kernels_are_not_accused(schedule: str, copies: str) -> None:
    a, b = operands().float()
    with simt.executing(schedule=schedule, copies=copies, seed=3, architecture=90):
        assert torch.equal(run("products_right"), 5 * a @ b.T)
        assert torch.equal(run("stage_released"), a @ b.T)
        assert torch.equal(run("seen_by_all"), a @ b.T)


@pytest.mark.parametrize("architecture", [80, 100, 120])
def test_only_one_architecture_has_these_words(architecture: int) -> None:
    rule = rf"architecture {architecture} has no wgmma|not exist on sm_{architecture}:"
    with simt.executing(architecture=architecture), pytest.raises(simt.SimtError, match=rule):
        run("products_right")


@pytest.mark.parametrize("kernel", ["missing_wait", "left_under_way", "a_warp_returns", "stage_written_early"])
def test_a_failed_launch_leaves_nothing_behind(kernel: str) -> None:
    with simt.executing(architecture=90):
        with pytest.raises(simt.SimtError):
            run(kernel)
        run("products_right")
        run("stage_released")


def test_products_are_counted() -> None:
    """Each thread says each product once."""
    with simt.executing(architecture=90, accounting=True) as execution:
        run("products_right")
    assert execution.launches[0].words["wgmma"] == 3 * 128
