"""attention's backward kernels by mma.sync: bytes by tiles, equal bits when deterministic, every broken word found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch

from instructgpt_fast import simt
from instructgpt_fast.ops._attention_masks import visible_keys
from python_tests.accuracy import same_bits
from python_tests.kernels.attention_gradients import AttentionGradients, drawn
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops.suite import SCHEDULES, Inputs, New, Results, require_same_bits
from python_tests.ops.test_attention import dense, packed

KEYS, QUERIES = 128, 32  # of a tile
WARPS = {64: 4, 80: 8, 96: 8, 128: 8}

FULL: Mapping[str, Any] = {"causal": False}
FAST: Mapping[str, Any] = {"deterministic": False}
DROPOUT: Mapping[str, Any] = {"dropout_p": 0.3, "dropout_seed": 7}

Traffic = Mapping[str, Mapping[str, Bytes]]


def visited_rows(tq: int, tk: int, causal: bool, window: int | None) -> list[int]:
    """Of all tiles of keys: the rows of each tile of queries of which some see some of the keys."""
    seen = visible_keys(tq, tk, causal, window)
    return [
        min(QUERIES, tq - first)
        for key in range(0, tk, KEYS) for first in range(0, tq, QUERIES)
        if seen[first:first + QUERIES, key:key + KEYS].any()
    ]


def traffic(*, causal: bool = True, window: int | None = None, dropout_p: float = 0.0, **_: Any,
            ) -> Callable[[Inputs], Traffic]:
    """k, v and out once; q and dout once a visit, dout once more for delta; dq's sums are zeroed, added to and read."""

    def moved(inputs: Inputs) -> Traffic:
        batch, tq, heads, width = inputs["q"].shape
        tiles = batch * heads * -(-tq // QUERIES)
        rows = batch * heads * visited_rows(tq, inputs["k"].shape[1], causal, window)
        scratch = (
            4 * QUERIES * (width * tiles + 2 * len(rows)),  # the sums; lse and delta at each visit
            tiles * (4 * QUERIES * (width + 2) + 4) + 4,    # zeros, lse and delta, a counter a tile; the ticket
        )
        seed = {"dropout_seed": (8 * WARPS[width] * len(rows), 0)} if dropout_p else {}
        return {"attention_backward": {
            **{name: (inputs[name].nbytes, 0) for name in ("k", "v", "out", "lse")}, **seed,
            "q": (2 * width * sum(rows), 0), "dout": (2 * width * sum(rows) + inputs["dout"].nbytes, 0),
            "dq": (0, inputs["q"].nbytes), "dk": (0, inputs["k"].nbytes), "dv": (0, inputs["v"].nbytes),
            "scratch 0": scratch,
        }}

    return moved


def case(name: str, inputs: Callable[[New], Inputs], dtype: torch.dtype, *, deterministic: bool = True,
         **options: Any) -> KernelCase:
    """The options are attention's. Bytes are counted in the free order: in the fixed one, blocks also read counters."""
    return KernelCase(name, drawn(inputs, **options), dtype, {**options, "deterministic": deterministic},
                      None if deterministic else traffic(**options))


def three_tiles_of_keys(new: New) -> Inputs:
    """What they add to one tile of queries nearly cancels: so dq's bits show in which order it was added."""
    inputs = dense(1, 24, 264, 1, 1, 64)(new)
    return {**inputs, "k": inputs["k"] + 8}


class TestAttentionMmaBackwardKernels(KernelSuite):
    suite = AttentionGradients
    equivalent: ClassVar = {
        ("shuffle_wrong_lane", "write_gradients<T, Tile>(call.d"): "neighbours exchange the chunks that they write",
        ("shuffle_wrong_lane", "thread_now()"): "of the number only warp and quad are used, which neighbours share",
    }
    cases = (
        case("three tiles of keys add to one of queries", three_tiles_of_keys, torch.float16, **FULL),
        case("dropout, packed, a window", packed((5, 0, 70, 1), 2, 1, 64), torch.bfloat16, window=9, **DROPOUT),
        case("in any order, two heads", dense(1, 136, 136, 2, 2, 64), torch.float16, **FAST),
        case("width 80, queries that see nothing", dense(2, 40, 8, 1, 1, 80), torch.bfloat16, **FAST),
        case("width 96, dropout, more keys than queries", dense(1, 40, 136, 2, 1, 96), torch.float16, **DROPOUT,
             **FAST),
        case("width 128, a window", dense(1, 72, 136, 1, 1, 128), torch.bfloat16, window=20, **FAST),
        case("width 128, full", dense(1, 40, 136, 1, 1, 128), torch.float16, **FULL),
    )

    def test_every_order_of_threads(self, case: KernelCase) -> None:
        """Right in every order; deterministic, the same bits."""
        for schedule in SCHEDULES:
            self._judge(case, self.run_case(case, **schedule)[0])

    def _judge(self, case: KernelCase, results: Results) -> None:
        super()._judge(case, results)
        if case.options.get("deterministic", True):
            require_same_bits(self._baseline(case).results, results)


def run(case: KernelCase, inputs: Inputs | None = None, **executing: Any) -> list[torch.Tensor]:
    """dq, dk and dv."""
    with simt.executing(**executing):
        return list(AttentionGradients.op(**(inputs or case.inputs(New(case.dtype))), **case.options))


needs_the_emulator = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


@needs_the_emulator
def test_deterministic_gradients_have_equal_bits_in_twenty_orders() -> None:
    """In the free order the same orders of blocks give other bits."""
    ordered, free = (case("", three_tiles_of_keys, torch.float16, **FULL, deterministic=deterministic)
                     for deterministic in (True, False))
    orders: list[dict[str, Any]] = [
        {"schedule": ("random", "preempting")[seed % 2], "copies": "random", "seed": seed} for seed in range(20)
    ]
    first, *others = [run(ordered, **order) for order in orders]
    assert all(same_bits(a, b) for other in others for a, b in zip(first, other, strict=True))
    dq, *free_dq = [run(free, **order)[0] for order in orders[:6]]
    assert not all(same_bits(dq, other) for other in free_dq)


@needs_the_emulator
@pytest.mark.parametrize("width", [64, 80, 96, 128])
def test_a_neighbour_full_of_nan_changes_no_bit(width: int) -> None:
    """A packed sequence is multiplied by zeros where its tiles reach beyond it, never by the next one's rows."""
    of_width = case("", packed((30, 20, 40), 1, 1, width), torch.bfloat16)
    clean, poisoned = of_width.inputs(New(torch.bfloat16)), of_width.inputs(New(torch.bfloat16))
    for name in ("q", "k", "v", "dout", "out"):
        poisoned[name][30:50] = torch.nan
    poisoned["lse"][:, 30:50] = torch.nan
    for a, b in zip(run(of_width, clean), run(of_width, poisoned), strict=True):
        assert same_bits(torch.cat([a[:30], a[50:]]), torch.cat([b[:30], b[50:]]))
        assert b[30:50].isnan().any()


@needs_the_emulator
def test_these_kernels_serve_the_call() -> None:
    """Every case here is of sm_80, and of sm_90 with dropout."""
    kernels = ["attention_backward_prepare", "attention_mma_backward_tiles", "attention_backward_finish"]
    none: Mapping[str, Any] = {}
    for options, architecture in ((none, 80), (DROPOUT, 90), (none, 120)):
        few = case("", dense(1, 8, 8, 1, 1, 64), torch.bfloat16, **options)
        with simt.executing(architecture=architecture, accounting=True) as report:
            AttentionGradients.op(**few.inputs(New(few.dtype)), **few.options)
        assert [launch.kernel for launch in report.launches] == kernels
