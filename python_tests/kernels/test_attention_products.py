"""How many products attention's kernels make, by tiles that are seen; and how they use shared memory.

Tiles that nobody sees cost nothing: that is counted here, instruction by instruction, for every width of both paths of
the tensor cores, and that none of them meets a bank of shared memory twice. The suites beside this file count bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from instructgpt_fast import simt
from python_tests.kernels.attention_gradients import AttentionGradients, drawn
from python_tests.kernels.attention_tiles import tiles_met
from python_tests.kernels.test_attention_mma import by_op
from python_tests.ops.suite import Inputs, New
from python_tests.ops.test_attention import dense, packed

WIDTHS = (64, 80, 96, 128)
CALLS: dict[str, tuple[Callable[[int], Callable[[New], Inputs]], dict[str, Any]]] = {
    "causal": (lambda width: dense(1, 136, 200, 2, 1, width), {}),
    "full": (lambda width: dense(1, 72, 136, 1, 1, width), {"causal": False}),
    "window": (lambda width: dense(1, 264, 264, 1, 1, width), {"window": 40}),
    "packed": (lambda width: packed((8, 0, 136, 64), 1, 1, width), {}),
}
MMA = 16 * 8 * 16           # multiply-adds of one mma.sync, said by 32 lanes
WGMMA_ROWS, DEPTH = 64, 16  # of one wgmma, said by 128 threads; it has as many columns as the product


def mma_forward(inputs: Inputs, width: int, **band: Any) -> int:
    """Two products for a warp's 32 queries and each tile of keys that some of them see."""
    keys = 64 if width < 128 else 32
    return tiles_met(inputs, 32, keys, **band) * 32 * 2 * (32 * keys * width) // MMA


def mma_backward(inputs: Inputs, width: int, **band: Any) -> int:
    """Five products for each tile of 128 keys and each of 32 queries of which some see some of them."""
    return tiles_met(inputs, 32, 128, **band) * 32 * 5 * (32 * 128 * width) // MMA


def hopper_forward(inputs: Inputs, width: int, **band: Any) -> int:
    """For a consumer's 64 queries and each tile of 128 keys: q k^T over the width, p v over the keys."""
    return tiles_met(inputs, WGMMA_ROWS, 128, **band) * 128 * (width + 128) // DEPTH


def hopper_backward(inputs: Inputs, width: int, **band: Any) -> int:
    """For two warpgroups: S and dP over the width, dV and dK over the queries, half of dQ over 128 keys."""
    queries = 128 if width == 64 else 64
    return tiles_met(inputs, queries, 128, **band) * 2 * 128 * (2 * width + 2 * queries + 128) // DEPTH


FORMULAS = {
    (80, "forward"): ("mma", mma_forward), (80, "backward"): ("mma", mma_backward),
    (90, "forward"): ("wgmma", hopper_forward), (90, "backward"): ("wgmma", hopper_backward),
}


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("architecture, direction", FORMULAS)
def test_products_and_wavefronts(architecture: int, direction: str, width: int, call: str) -> None:
    draw, band = CALLS[call]
    word, products = FORMULAS[architecture, direction]
    backward = direction == "backward"
    op = AttentionGradients.op if backward else by_op
    inputs = (drawn(draw(width), **band) if backward else draw(width))(New(torch.bfloat16))
    with simt.executing(architecture=architecture, accounting=True) as run:
        op(**inputs, **band)
    launch, = (launch for launch in run.launches if launch.words.get(word))
    assert launch.words[word] == inputs["q"].shape[-2] * products(inputs, width, **band)
    assert launch.shared_wavefronts == launch.ideal_shared_wavefronts > 0
