"""attention's backward kernels of sm_90a: bytes by tiles, equal bits when deterministic, every broken word found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

from instructgpt_fast import simt
from python_tests.accuracy import same_bits
from python_tests.kernels.attention_gradients import AttentionGradients, drawn
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite, source_line
from python_tests.ops.suite import SCHEDULES, Inputs, New
from python_tests.ops.test_attention import dense, packed

KEYS = 128
HOPPER = 90


def tile_queries(width: int) -> int:
    return 128 if width == 64 else 64


def visited_rows(tq: int, tk: int, width: int) -> tuple[int, int]:
    """Of all tiles of keys: tiles of queries of which some see some of the keys, and the rows that these have."""
    rows = tile_queries(width)
    visited = [
        min(rows, tq - first)
        for key in range(0, tk, KEYS) for first in range(0, tq, rows)
        if min(first + rows, tq) - 1 + tk - tq >= key
    ]
    return len(visited), sum(visited)


def traffic(inputs: Inputs) -> Mapping[str, Mapping[str, Bytes]]:
    """k, v and out once; q and dout once a visit, dout once more for delta; dq's sums are zeroed, added to and read."""
    batch, tq, heads, width = inputs["q"].shape
    tile = tile_queries(width)
    tiles = batch * heads * -(-tq // tile)
    visits, rows = (batch * heads * count for count in visited_rows(tq, inputs["k"].shape[1], width))
    once = {name: (inputs[name].nbytes, 0) for name in ("k", "v", "out", "lse")}
    scratch = (
        4 * tile * (width * tiles + 2 * visits),           # the sums; lse and delta at each visit
        tiles * (4 * tile * (width + 2) + 4) + 4,          # zeros, lse and delta, a counter a tile; the ticket
    )
    return {"attention_backward": {
        **once, "q": (2 * width * rows, 0), "dout": (2 * width * rows + inputs["dout"].nbytes, 0),
        "dq": (0, inputs["q"].nbytes), "dk": (0, inputs["k"].nbytes), "dv": (0, inputs["v"].nbytes),
        "scratch 0": scratch,
    }}


FULL = {"causal": False}
FAST = {"deterministic": False}
RAGGED = packed((5, 0, 70, 33), 1, 1, 96)
# Tails of tiles of keys (row 64 on) and of queries (row 154 on) are another sequence's rows.
POISONED = {"poisoned": ((64, 84), (154, 174))}
BESIDE_NAN = packed((64, 20, 70, 20), 1, 1, 128)


class TestAttentionHopperBackwardKernels(KernelSuite):
    suite = AttentionGradients
    cases = (
        KernelCase("two tiles each way", drawn(dense(1, 136, 136, 1, 1, 64)), torch.bfloat16, architecture=HOPPER),
        KernelCase("packed, ragged, a window", drawn(RAGGED, window=40), torch.bfloat16, {"window": 40},
                   architecture=HOPPER),
        KernelCase("packed beside NaN", drawn(BESIDE_NAN), torch.float16, POISONED, architecture=HOPPER),
        KernelCase("a group of heads, more keys than queries", drawn(dense(1, 72, 152, 2, 1, 80)), torch.float16,
                   architecture=HOPPER),
        KernelCase("in any order", drawn(dense(1, 136, 136, 1, 1, 64)), torch.float16, FAST, traffic,
                   architecture=HOPPER),
        KernelCase("in any order, queries that see nothing", drawn(dense(1, 136, 24, 2, 2, 128)), torch.bfloat16, FAST,
                   traffic, architecture=HOPPER),
    )
    equivalent: ClassVar = {
        ("shuffle_wrong_lane", "thread_x() / (4 * kWarp)"): "all lanes of a warp hold the same number",
        ("shuffle_wrong_lane", "thread_x() / device::kWarp % 4"): "all lanes of a warp hold the same number",
        ("shift_load", "load_acquire(counter)"): "sums are right in any order; a test of their bits is below",
        ("drop_wait", "ptx::bulk_wait<0>()"): "sums are right in any order; a test of their bits is below",
        ("drop_fence", "ptx::proxy_fence_global()"): "the emulator adds where it counts turns, a GPU in another proxy",
        ("drop_fence", "zero_rows<QueryTile>(queries"): "the fence after the zeros of dO serves both",
        ("drop_warp_barrier", "meet_and_arrive(&barriers.empty"):
            "lanes have read the stage before the barrier of all consumers, and products end for all at their wait",
        ("shift_store", "zero_rows<"): "zeros change places in pairs",
    }

    def test_every_order_of_threads(self, case: KernelCase) -> None:
        """Right in every order; deterministic, the same bits."""
        if case.options.get("deterministic", True):
            super().test_every_order_of_threads(case)
            return
        for schedule in SCHEDULES:
            self._judge(case, self.run_case(case, **schedule)[0])


def run(case: KernelCase, **executing: Any) -> tuple[torch.Tensor, ...]:
    """dq, dk and dv."""
    with simt.executing(architecture=HOPPER, multiprocessors=4, **executing):
        return AttentionGradients.op(**case.inputs(New(case.dtype)), **case.options)


FOUR_BLOCKS = KernelCase("", drawn(dense(1, 128, 512, 1, 1, 64), **FULL), torch.float16, FULL)
TWENTY = [{"schedule": ("random", "preempting")[seed % 2], "copies": "random", "seed": seed} for seed in range(20)]


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built")
def test_deterministic_gradients_have_equal_bits_in_twenty_orders() -> None:
    first = run(FOUR_BLOCKS, schedule="forward", copies="lazy")
    for order in TWENTY:
        again = run(FOUR_BLOCKS, **order)
        assert all(same_bits(a, b) for a, b in zip(first, again, strict=True)), order


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built")
@pytest.mark.parametrize("broken", ["by choice", "turns passed on too early"])
def test_additions_in_another_order_have_other_bits(broken: str) -> None:
    """So the test above can fail, and does when a block counts its addition before it was made."""
    first, mutation, options = run(FOUR_BLOCKS, schedule="forward", copies="lazy"), None, FULL
    if broken == "by choice":
        options = FULL | FAST
    else:
        with simt.executing(architecture=HOPPER, sites=True) as clean:
            AttentionGradients.op(**FOUR_BLOCKS.inputs(New(FOUR_BLOCKS.dtype)), **FULL)
        wait, = (site for site in clean.sites if site.kind == "drop_wait" and "bulk_wait<0>" in source_line(site.where))
        mutation = simt.Mutation(wait.kind, wait.where)
    case = KernelCase("", FOUR_BLOCKS.inputs, FOUR_BLOCKS.dtype, options)
    assert any(not same_bits(first[0], run(case, mutation=mutation, **order)[0]) for order in TWENTY)


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built")
@pytest.mark.parametrize("width", [64, 128])
def test_a_neighbour_full_of_nan_changes_no_bit(width: int) -> None:
    """Tiles of a packed sequence bring the next one's rows too."""
    draw = drawn(packed((70, 20, 140), 1, 1, width))
    clean, poisoned = (KernelCase("", draw, torch.bfloat16, options) for options in ({}, {"poisoned": ((70, 90),)}))
    for a, b in zip(run(clean), run(poisoned), strict=True):
        assert same_bits(torch.cat([a[:70], a[90:]]), torch.cat([b[:70], b[90:]]))
