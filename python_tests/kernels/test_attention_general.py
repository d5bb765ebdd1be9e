"""attention's kernels on CUDA cores: bytes by tiles of every width, any alignment, every broken word found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from python_tests.kernels.attention_tiles import keys_brought, queries_brought, queries_that_see
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_attention
from python_tests.ops.suite import Inputs
from python_tests.ops.test_attention import dense, packed

# Width up to -> own x other rows of a tile, of the forward and of the backward kernels.
FORWARD = {32: (64, 64), 64: (64, 64), 128: (64, 32), 256: (32, 16)}
BACKWARD = {32: (64, 64), 64: (64, 64), 128: (32, 32), 256: (16, 16)}
LSE_READERS = 4  # warps of a block of keys: each reads the numbers of the queries that it meets
DROPOUT: Mapping[str, Any] = {"dropout_p": 0.4, "dropout_seed": 11}

Traffic = Mapping[str, Mapping[str, Bytes]]


def tile(table: Mapping[int, tuple[int, int]], width: int) -> tuple[int, int]:
    return next(tiles for widest, tiles in table.items() if width <= widest)


def traffic(**band: Any) -> Callable[[Inputs], Traffic]:
    """What a block owns once; the other side's tiles for every tile that sees them; q again for each kernel."""

    def moved(inputs: Inputs) -> Traffic:
        q, k = inputs["q"], inputs["k"]
        heads, width = q.shape[-2:]
        row, floats = width * q.element_size(), 4 * heads * q[..., 0, 0].numel()
        own, other = tile(FORWARD, width)
        keys = heads * row * keys_brought(inputs, own, other, **band)
        asked = heads * row * queries_that_see(inputs, own, **band)
        forward = {"q": (asked, 0), "k": (keys, 0), "v": (keys, 0), "out": (0, q.nbytes), "lse": (0, floats)}
        own, other = tile(BACKWARD, width)
        keys = heads * row * keys_brought(inputs, own, other, **band)
        rows = heads * queries_brought(inputs, own, other, **band)
        backward = {
            "q": (q.nbytes + row * rows, 0), "dout": (q.nbytes + row * rows, 0), "out": (q.nbytes, 0),
            "k": (keys + k.nbytes, 0), "v": (keys + k.nbytes, 0), "lse": (floats + LSE_READERS * 4 * rows, 0),
            "scratch 0": (LSE_READERS * 4 * rows, floats),
            "dq": (0, q.nbytes), "dk": (0, k.nbytes), "dv": (0, k.nbytes),
        }
        return {"attention": forward, "attention_backward": backward}

    return moved


class TestAttentionGeneralKernels(KernelSuite):
    suite = test_attention.TestAttention
    cases = (
        KernelCase("two tiles, two query heads a key head", dense(1, 72, 72, 2, 1, 32), traffic=traffic()),
        KernelCase("some see nothing", dense(1, 40, 35, 1, 1, 20)),
        KernelCase("width 64", dense(1, 5, 66, 1, 1, 64), options={"causal": False}, traffic=traffic(causal=False)),
        KernelCase("width 128", dense(1, 33, 40, 1, 1, 128), traffic=traffic()),
        KernelCase("width 256, a band", dense(1, 20, 36, 1, 1, 256), options={"window": 3}, traffic=traffic(window=3)),
        KernelCase("packed, dropout, any width", packed((3, 0, 70), 2, 1, 20), torch.bfloat16,
                   options={"window": 9, **DROPOUT}),
        KernelCase("dropout, width 100", dense(1, 35, 40, 1, 1, 100), torch.float16, options=DROPOUT),
    )
