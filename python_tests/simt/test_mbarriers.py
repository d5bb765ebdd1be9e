"""Barriers in shared memory: each rule is broken by a kernel that breaks only it, in csrc/simt/selftest."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast import simt
from python_tests.simt.async_kernels import EVERY_ORDER, INPUT, assert_told, kernels_of, run

# What a kernel is told (a pattern; where threads are wrong, the order decides how it shows), and a line it is told of.
TOO_FEW_SEEN = "ended before thread \\d+ has seen the end of the phase before"
OUT_OF_STEP = f"race between threads on|{TOO_FEW_SEEN}|an arrival too many|deadlock"
FAULTS = {
    "released_early": ("race between threads on byte \\d+ of the dynamic block", "reads the stage"),
    "released_by_one_lane": ("race between threads on byte \\d+ of the dynamic block", "reads the stage"),
    "no_wait_for_full": (OUT_OF_STEP, "empty + ", "full + ", "reads the stage"),
    "no_wait_for_empty": (OUT_OF_STEP, "full + "),
    "wrong_parity": (OUT_OF_STEP, "full + "),
    "not_fenced": ("a copy ends at an mbarrier that the async proxy does not know of", "ptx::load_tile<2>(tile, a.in"),
    "no_barrier_after_init": ("nothing orders after its beginning|no mbarrier was begun at met\\[0\\]",
                              "ptx::mbarrier_arrive(met);"),
    "never_begun": ("no mbarrier was begun at met\\[1\\]", "ptx::mbarrier_wait(met + 1, 1);"),
    "begun_twice": ("an mbarrier is begun where one stands already", "ptx::mbarrier_init(met, 2);"),
    "overwritten": ("bytes of an mbarrier are touched otherwise than by its words", "met[0] = 0;"),
    "looked_at": ("bytes of an mbarrier are touched otherwise than by its words", "load(met)"),
    "no_arrivals": ("an mbarrier of 0 arrivals", "ptx::mbarrier_init(met, 0);"),
    "misaligned": ("misaligned mbarrier: 4 bytes past a multiple of 8", "reinterpret_cast<char*>(met) + 4"),
    "in_global_memory": ("an mbarrier outside of shared memory", "reinterpret_cast<uint64_t*>(a.output)"),
    "parity_of_two": ("a wait for parity 2", "ptx::mbarrier_wait(met, 2);"),
    "too_many_arrivals": ("an arrival too many: all 1 of phase 0 of full\\[0\\]", "ptx::mbarrier_arrive(full);"),
    "too_few_arrivals": ("deadlock(.|\n)*threads 0-63 of block 0 wait for met\\[0\\] .*phase 0 lacks 1 of 65 arrivals",
                         "ptx::mbarrier_wait(met, 0);"),
    "too_few_bytes": ("more bytes came to full\\[0\\] .* than were announced in phase 0: 16 too many",
                      "ptx::load_tile<2>(tiles"),
    "bytes_of_one_for_two": ("phase 0 of full\\[0\\] .* ended while 1 of its copies were under way|not waited for",
                             "ptx::load_tile<2>(tiles"),
    "too_many_bytes": ("deadlock(.|\n)*full\\[0\\] .*phase 0 lacks 0 of 1 arrivals and 16 bytes",
                       "ptx::mbarrier_wait(full, 0);"),
    "bytes_without_copy": ("deadlock(.|\n)*full\\[0\\] .*phase 0 lacks 0 of 1 arrivals and 1024 bytes",
                           "ptx::mbarrier_wait(full, 0);"),
    "waits_for_ever": ("deadlock(.|\n)*met\\[0\\] .*phase 1 lacks 64 of 64 arrivals", "nobody arrives in phase 1"),
    "left_behind": (f"phase 1 of met\\[0\\] .* {TOO_FEW_SEEN}|deadlock(.|\n)*phase 2 lacks 1 of 1 arrivals",
                    "ptx::mbarrier_"),
    "one_waits_for_all": ("race between threads on byte \\d+ of the dynamic block", "give(a.output, tile, 0);"),
    "load_not_waited_for": ("not waited for at the end of its block", "bring(tile, a.in, 0, full);"),
}
RIGHT = {"pipeline_right", "arrivals_order_writes", "announced_late"}

pytestmark = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


def test_every_kernel_is_tested() -> None:
    assert set(kernels_of("mbarriers")) == set(FAULTS) | RIGHT


@pytest.mark.parametrize("kernel", FAULTS)
def test_a_broken_rule_is_named_with_its_place(kernel: str) -> None:
    assert_told("mbarriers", kernel, *FAULTS[kernel])


@pytest.mark.parametrize("schedule, copies", EVERY_ORDER)
@pytest.mark.parametrize("seed", [3, 4])
def test_right_kernels_are_not_accused(schedule: str, copies: str, seed: int) -> None:
    with simt.executing(schedule=schedule, copies=copies, seed=seed, architecture=90):
        assert torch.equal(run("mbarriers", "pipeline_right")[0], 2 * INPUT)
        met = run("mbarriers", "arrivals_order_writes")[0].flatten()
        assert torch.equal(met[:64], torch.arange(63, -1, -1).float())
        assert torch.equal(met[5 * 64 : 6 * 64], torch.arange(68, 4, -1).float())
        assert torch.equal(run("mbarriers", "announced_late")[0][:8], INPUT[:8])


def test_the_words_are_of_sm_90() -> None:
    for architecture in (80, 89):
        rule = f"mbarrier_init does not exist on sm_{architecture}: it came with sm_90"
        with simt.executing(architecture=architecture), pytest.raises(simt.SimtError, match=rule):
            run("mbarriers", "pipeline_right")
    for architecture in (90, 100, 120):
        with simt.executing(architecture=architecture):
            run("mbarriers", "pipeline_right")


# Kinds of mutations, and how often the pipeline says words that they can break.
KINDS = {"drop_arrive": 2, "drop_barrier": 1, "drop_fence": 1, "drop_store": 2, "drop_wait": 2, "shift_load": 1,
         "shift_store": 1, "wrong_bytes": 1, "wrong_parity": 2}


def test_every_mutation_of_a_pipeline_is_found() -> None:
    """By a fault, or by a wrong result, in one of the orders."""
    with simt.executing(sites=True, architecture=90) as recorded:
        run("mbarriers", "pipeline_right")
    assert {kind: len(recorded.sites_of(kind)) for kind in KINDS} == KINDS
    survivors = []
    for site in recorded.sites:
        for schedule, copies in EVERY_ORDER:
            try:
                with simt.executing(schedule=schedule, copies=copies, seed=1, architecture=90,
                                    mutation=simt.Mutation(site.kind, site.where)) as broken:
                    result = run("mbarriers", "pipeline_right")[0]
            except simt.SimtError:
                break
            if not torch.equal(result, 2 * INPUT):
                break
            assert broken.mutation_applied, site
        else:
            survivors.append(site)
    assert survivors == []
