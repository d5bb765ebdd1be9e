"""attention's forward kernel for sm_90a: out and log-sum-exp, bytes as tiles are counted, every word broken in turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from instructgpt_fast import simt
from python_tests.accuracy import same_bits
from python_tests.kernels.attention_tiles import bounds_read, sequences, tiles
from python_tests.kernels.suite import KernelCase, KernelSuite, source_line
from python_tests.kernels.test_attention_mma import AttentionForward, Traffic, by_op
from python_tests.ops.suite import Case, Inputs, New
from python_tests.ops.test_attention import dense, packed

KERNEL = "attention_hopper_forward_tiles"
KEYS = 128     # of a tile
CONSUMER = 64  # queries
QUERIES = {64: 3 * CONSUMER, 80: 2 * CONSUMER, 96: 2 * CONSUMER, 128: 2 * CONSUMER}  # of a tile, by width
ELEMENT = 2
NAN = float("nan")


def rows_brought(inputs: Inputs, **band: Any) -> tuple[int, int]:
    """Rows of q and of k, for one query head.

    A box is brought whole but for what lies outside of its dimension: the sequence, in a packed batch all rows.
    """
    of_tile = QUERIES[inputs["q"].shape[-1]]
    queries = keys = begin = 0
    for sequence in sequences(inputs, **band):
        is_packed = "cu_seqlens" in inputs
        q_end = len(inputs["q"]) - begin if is_packed else sequence.queries
        k_end = len(inputs["k"]) - begin if is_packed else sequence.keys
        for tile in tiles(sequence.queries, of_tile):
            seen = [r for r in map(sequence.seen_by, tile) if r]
            if seen:
                queries += sum(min(CONSUMER, q_end - first) for first in tile[::CONSUMER])
                first, last = min(r.start for r in seen) // KEYS, (max(r.stop for r in seen) - 1) // KEYS
                keys += sum(min(KEYS, k_end - KEYS * t) for t in range(first, last + 1))
        begin += sequence.queries
    return queries, keys


def traffic(inputs: Inputs, **band: Any) -> Traffic:
    heads, width = inputs["q"].shape[-2:]
    rows = inputs["q"].numel() // (heads * width)
    row = heads * width * ELEMENT
    queries, keys = rows_brought(inputs, **band)
    return {
        "attention": {
            "q": (row * queries, 0), "k": (row * keys, 0), "v": (row * keys, 0),
            "out": (0, row * rows), "lse": (0, 4 * heads * rows),
            "cu_seqlens": (4 * heads * bounds_read(inputs, QUERIES[width]), 0),
        },
    }


def case(name: str, inputs: Callable[[New], Inputs], dtype: torch.dtype = torch.bfloat16, multiprocessors: int = 4,
         counted: bool = True, **options: Any) -> KernelCase:
    return KernelCase(name, inputs, dtype, options, partial(traffic, **options) if counted else None, multiprocessors,
                      architecture=90)


class TestAttentionHopperForward(KernelSuite):
    suite = AttentionForward
    cases: ClassVar[tuple[KernelCase, ...]] = (
        case("more tiles of keys than stages, width 80", dense(1, 40, 264, 1, 1, 80), causal=False),
        case("one block for several items, two query heads a key head", dense(2, 24, 24, 2, 1, 64), torch.float16, 1),
        case("packed, ragged, some empty", packed((8, 0, 144, 59), 1, 1, 64), torch.float16, 8),
        case("packed, sequences begin anywhere", packed((5, 1, 130, 3), 1, 1, 128), multiprocessors=1, counted=False),
        case("window over tiles, consumers pass over both ends", dense(1, 392, 392, 1, 1, 64), window=40),
        case("width 96, more queries than keys: some see nothing", dense(1, 136, 64, 1, 1, 96)),
    )
    equivalent: ClassVar[dict[tuple[str, str], str]] = {
        ("shuffle_wrong_lane", "shuffle(thread_index() / kWarp, 0)"): "all lanes of a warp have the warp's number",
        ("drop_store", "zero_rows<typename C::Keys>"):
            "finite values times 0; test_sequences_do_not_see_each_other has NaN there",
        ("shift_store", "zero_rows<typename C::Keys>"): "neighbouring pieces of rows that become 0 change places",
        ("drop_barrier", "named_barrier_sync(kTurns + consumer"): "turns keep consumers out of step, no more",
        ("drop_warp_barrier", "no lane still waits for this phase"):
            "only a lane that sleeps through a whole round of the ring would wait for ever: no schedule here has one",
        ("drop_warp_barrier", "meet_and_arrive(self.shared.q_empty"):
            "only a lane that sleeps through an item would wait for ever: no schedule here has one",
    }


def on_hopper(*tensors: Tensor, multiprocessors: int = 4, **options: Any) -> tuple[tuple[Tensor, Tensor], simt.Run]:
    """out and lse of the emulated kernel, and the run."""
    with simt.executing(architecture=90, multiprocessors=multiprocessors, accounting=True) as run:
        results = by_op(*tensors, **options)
    return results, run


def judge(inputs: Callable[[New], Inputs], dtype: torch.dtype = torch.bfloat16, **options: Any) -> None:
    """Out and lse of one call, by the forward kernel alone."""
    suite, call, tensors = AttentionForward(), Case("", inputs, options), inputs(New(dtype))
    out, run = on_hopper(**tensors, **options)
    assert [launch.kernel for launch in run.launches] == [KERNEL]
    results = {f"output {i}": t for i, t in enumerate(out)}
    suite.judge_results(results, *suite.references(tensors, call), call, dtype)


needs_emulator = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


@needs_emulator
def test_views_of_one_projection() -> None:
    """Rows far apart, as the parts of a fused projection have them, are brought where they lie."""
    def fused(new: New) -> Inputs:
        q, k, v = new(2, 70, 3, 2, 64).unbind(2)
        return {"q": q, "k": k, "v": v}

    judge(fused)


@needs_emulator
@pytest.mark.parametrize("width", [64, 128])
def test_sequences_do_not_see_each_other(width: int) -> None:
    """NaN in one packed sequence changes no bit of its neighbours, whose tiles hold some of its rows."""
    torch.manual_seed(0)
    x = torch.randn(150, 1, width).bfloat16()
    bounds = torch.tensor([0, 30, 90, 150], dtype=torch.int32)
    poisoned = x.clone()
    poisoned[30:90] = NAN
    (out, lse), _ = on_hopper(x, x, x, cu_seqlens=bounds)
    (other_out, other_lse), _ = on_hopper(poisoned, poisoned, poisoned, cu_seqlens=bounds)
    for rows in (slice(0, 30), slice(90, 150)):
        assert same_bits(out[rows], other_out[rows]) and same_bits(lse[:, rows], other_lse[:, rows])
    assert other_out[30:90].isnan().all()
    zeroing = next(s.where for s in sites_of_a_pack() if s.kind == "drop_store" and "zero_rows" in source_line(s.where))
    with simt.executing(architecture=90, mutation=simt.Mutation("drop_store", zeroing)):
        broken, _ = by_op(poisoned, poisoned, poisoned, cu_seqlens=bounds)
    assert broken[:30].isnan().any(), "rows of a neighbour are let in, and nobody sees it"


def sites_of_a_pack() -> tuple[simt.Site, ...]:
    """What can be broken in a packed batch."""
    x = torch.randn(100, 1, 64).bfloat16()
    with simt.executing(architecture=90, sites=True) as run:
        by_op(x, x, x, cu_seqlens=torch.tensor([0, 50, 100], dtype=torch.int32))
    return tuple(run.sites)


@needs_emulator
def test_neither_packing_nor_the_number_of_blocks_changes_a_bit() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 72, 2, 80).half()
    bounds = (torch.arange(4) * 72).int()
    (out, lse), _ = on_hopper(x, x, x)
    for blocks in (1, 3):
        (other, other_lse), _ = on_hopper(*[x.flatten(0, 1)] * 3, cu_seqlens=bounds, multiprocessors=blocks)
        assert same_bits(out.flatten(0, 1), other) and same_bits(lse, other_lse)


@needs_emulator
def test_which_calls_it_serves() -> None:
    """On sm_90 all but dropout and other widths."""
    for width, dropout_p, served in ((64, 0.0, True), (64, 0.5, False), (72, 0.0, False)):
        x = torch.randn(1, 8, 1, width).half()
        _, run = on_hopper(x, x, x, dropout_p=dropout_p)
        assert (run.launches[0].kernel == KERNEL) == served
