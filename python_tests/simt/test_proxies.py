"""Proxy fences: what threads write, tensor copies see only past a fence on the way."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast import simt
from python_tests.simt.async_kernels import EVERY_ORDER, INPUT, assert_told, kernels_of, run

RULE = "no proxy fence between a thread's write and asynchronous work on the same bytes"
TILE = torch.arange(256, dtype=torch.float32).reshape(8, 32)
# Kernels without their fence: the word they are told of.
FAULTS = {
    "nobody_fences_a_store": "ptx::store_tile<2>(a.out, {0, 0}, tile);",
    "nobody_fences_an_addition": "ptx::add_tile<2>(a.added, {0, 0}, tile);",
    "nobody_fences_a_bulk_addition": "ptx::bulk_add(a.sums, tile, kTileBytes);",
    "fenced_before_the_writes": "ptx::store_tile<2>(a.out, {0, 0}, tile);",
    "fence_not_ordered": "ptx::store_tile<2>(a.out, {0, 0}, tile);",
    "fence_of_global_memory": "ptx::store_tile<2>(a.out, {0, 0}, tile);",
    "counted_without_fence": "atomic_add(sums",
    "comes_over_writes": "bring(tile, a.in, 0, full);",
    "written_and_brought": "store(a.output + i, static_cast<float>(i));",
    "written_and_brought_with_another_fence": "store(a.output + i, static_cast<float>(i));",
}
RIGHT = {"fenced_by_writers", "fenced_by_issuer", "fenced_by_middleman", "counted_and_fenced",
         "comes_over_fenced_writes", "written_fenced_and_brought", "brought_and_stored"}

pytestmark = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


def test_every_kernel_is_tested() -> None:
    assert set(kernels_of("proxies")) == set(FAULTS) | RIGHT


@pytest.mark.parametrize("kernel", FAULTS)
def test_a_missing_fence_is_named_with_its_place(kernel: str) -> None:
    assert_told("proxies", kernel, RULE, FAULTS[kernel])


@pytest.mark.parametrize("schedule, copies", EVERY_ORDER)
def test_right_kernels_are_not_accused(schedule: str, copies: str) -> None:
    with simt.executing(schedule=schedule, copies=copies, seed=2, architecture=90):
        for kernel in ("fenced_by_writers", "fenced_by_issuer", "fenced_by_middleman"):
            assert torch.equal(run("proxies", kernel)[0][:8], TILE)
        assert torch.equal(run("proxies", "counted_and_fenced")[1][0], torch.full((32,), 2.0))
        assert torch.equal(run("proxies", "comes_over_fenced_writes")[0][:8], INPUT[:8])
        assert torch.equal(run("proxies", "written_fenced_and_brought")[1][:8], TILE)
        assert torch.equal(run("proxies", "brought_and_stored")[0], INPUT)
