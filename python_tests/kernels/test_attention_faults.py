"""What the emulator says of attention's kernels when one word of their order is broken: fault by fault.

The suites beside this file break every word and ask only that it shows. Here stand those on which a pipeline hangs,
each with the message that a reader would get: a wait left out or for the other phase, a fence left out, a stage that is
filled again too early, a descriptor with another stride, bytes that were not announced.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch

from instructgpt_fast import simt
from python_tests.kernels.attention_gradients import AttentionGradients, drawn
from python_tests.kernels.suite import source_line
from python_tests.kernels.test_attention_mma import by_op
from python_tests.ops.suite import New
from python_tests.ops.test_attention import dense

FULL: dict[str, Any] = {"causal": False}
ROWS = dense(1, 264, 264, 1, 1, 80)  # more tiles than stages, of queries and of keys
CALLS: dict[str, Callable[[], Any]] = {
    "forward": lambda: by_op(**ROWS(New(torch.bfloat16)), **FULL),
    "backward": lambda: AttentionGradients.op(**drawn(ROWS, **FULL)(New(torch.bfloat16)), **FULL),
}

RACE = "race between threads on"
UNDER_WAY = "registers of a product are touched before it was waited for"
COPYING = "touched before it was waited for"
TOO_EARLY = "an arrival too many: all 1 of phase 0"  # a stage is filled again before all have read it
NO_PROXY_FENCE = "no proxy fence between"

# Architecture, direction, kind of mutation, part of the source line, what the message says.
FAULTS = (
    (80, "forward", "drop_wait", "ptx::cp_async_wait<", COPYING),
    (80, "backward", "drop_wait", "ptx::cp_async_wait<0>()", COPYING),
    (80, "forward", "drop_barrier", "block_barrier();", RACE),
    (80, "backward", "drop_barrier", "block_barrier();", RACE),
    (90, "forward", "drop_wait", "shared.k_full + tile_stage", RACE),
    (90, "forward", "drop_wait", "shared.v_full + stage", RACE),
    (90, "forward", "wrong_parity", "shared.k_full + tile_stage", RACE),
    (90, "forward", "wrong_parity", "shared.k_empty + stage", "deadlock"),
    (90, "forward", "drop_wait", "shared.k_empty + stage", TOO_EARLY),
    (90, "forward", "drop_wait", "shared.v_empty + stage", RACE),
    (90, "forward", "drop_wait", "ptx::wgmma_wait<", UNDER_WAY),
    (90, "forward", "drop_fence", "ptx::wgmma_fence()", "wgmma_fence"),
    (90, "forward", "drop_fence", "ptx::proxy_fence_shared()", NO_PROXY_FENCE),
    (90, "forward", "drop_fence", "ptx::mbarrier_init_fence()", "the async proxy does not know of"),
    (90, "forward", "wrong_bytes", "mbarrier_arrive_expecting(", "more bytes came to"),
    (90, "backward", "drop_wait", "barriers.queries_full[ring.stage]", RACE),
    (90, "backward", "wrong_parity", "barriers.queries_full[ring.stage]", RACE),
    (90, "backward", "drop_wait", "barriers.empty[ring.stage]", TOO_EARLY),
    (90, "backward", "drop_wait", "ptx::wgmma_wait<", UNDER_WAY),
    (90, "backward", "drop_wait", "ptx::bulk_wait_read<0>()", RACE),
    (90, "backward", "drop_fence", "ptx::wgmma_fence()", "wgmma_fence"),
    (90, "backward", "drop_fence", "ptx::proxy_fence_shared()", NO_PROXY_FENCE),
    (90, "backward", "wrong_bytes", "mbarrier_arrive_expecting(", "more bytes came to"),
)


@lru_cache(maxsize=4)
def sites(architecture: int, direction: str) -> tuple[simt.Site, ...]:
    with simt.executing(architecture=architecture, sites=True) as run:
        CALLS[direction]()
    return run.sites


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built")
@pytest.mark.parametrize("architecture, direction, kind, said, message", FAULTS)
def test_what_is_said(architecture: int, direction: str, kind: str, said: str, message: str) -> None:
    broken = [site.where for site in sites(architecture, direction)
              if site.kind == kind and "ops/attention/" in site.where and said in source_line(site.where)]
    assert broken, f"no {kind} at a line with {said}"
    for where in broken:
        with pytest.raises(simt.SimtError, match=message), \
                simt.executing(architecture=architecture, mutation=simt.Mutation(kind, where)):
            CALLS[direction]()


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built")
@pytest.mark.parametrize("direction", CALLS)
def test_a_descriptor_with_another_stride(direction: str) -> None:
    """It reads what is not there yet, or other rows: a race, or other numbers."""
    with simt.executing(architecture=90):
        right = CALLS[direction]()
    broken = [site.where for site in sites(90, direction) if site.kind == "wrong_stride"]
    assert broken
    for where in broken:
        try:
            with simt.executing(architecture=90, mutation=simt.Mutation("wrong_stride", where)):
                wrong = CALLS[direction]()
        except simt.SimtError as fault:
            assert RACE in str(fault) or "no tile can have" in str(fault), where
            continue
        far = [(a.float() - b.float()).norm() / a.float().norm() for a, b in zip(right, wrong, strict=True)]
        assert not max(far) < 0.1, f"{where}: {far}"
