"""setmaxnreg: the registers of a block's warps, kept as counts; each rule is broken by a kernel that breaks only it."""

from __future__ import annotations

import pytest

from instructgpt_fast import simt
from python_tests.simt.async_kernels import EVERY_ORDER, assert_told, kernels_of, run

FAULTS = {
    "claims_too_much": ("deadlock(.|\n)*warp \\d+ claims 72 registers more .*the pool of block 0 has 8 ",
                        "ptx::claim_registers<240>();"),
    "claims_before_a_release_that_waits": ("deadlock(.|\n)*claims 64 registers more", "ptx::claim_registers<232>();"),
    "some_warps": ("registers were set by some warps of a warpgroup only\n  warp 3 of block 0 never says",
                   "if (thread_x() < 96)"),
    "differently": ("the warps of a warpgroup set registers differently", "ptx::release_registers<56>();"),
    "some_lanes": ("missing lanes", "if (lane_index() < 16)"),
    "releases_more_than_it_has": ("a warp that has 168 registers a thread releases down to 176", "<176>();"),
    "claims_less_than_it_has": ("a warp that has 168 registers a thread claims up to 160", "<160>();"),
    "again_without_meeting": ("registers are set again before the warpgroup has met", "ptx::release_registers<96>();"),
    "less_than_a_warpgroup": ("registers are set by less than a warpgroup", "less_than_a_warpgroup("),
}

pytestmark = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


def test_every_kernel_is_tested() -> None:
    assert set(kernels_of("registers")) == set(FAULTS) | {"handed_over"}


@pytest.mark.parametrize("kernel", FAULTS)
def test_a_broken_rule_is_named_with_its_place(kernel: str) -> None:
    assert_told("registers", kernel, *FAULTS[kernel])


@pytest.mark.parametrize("schedule, copies", EVERY_ORDER)
def test_registers_that_were_released_can_be_claimed(schedule: str, copies: str) -> None:
    with simt.executing(schedule=schedule, copies=copies, seed=5, architecture=90):
        run("registers", "handed_over")


@pytest.mark.parametrize("architecture", [89, 100, 120])
def test_the_words_are_of_sm_90a_alone(architecture: int) -> None:
    with (simt.executing(architecture=architecture),
          pytest.raises(simt.SimtError, match=f"does not exist on sm_{architecture}: it is of sm_90a alone")):
        run("registers", "handed_over")
