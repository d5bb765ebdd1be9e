"""attention's forward kernel by mma.sync: what it moves, in every order of its threads, and broken at every word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from instructgpt_fast.ops.attention import attention_oracle
from python_tests.kernels.attention_gradients import log_sum_exp
from python_tests.kernels.attention_tiles import bounds_read, keys_brought, queries_that_see
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_attention
from python_tests.ops.suite import Case, Inputs, OpSuite
from python_tests.ops.test_attention import dense, packed

Traffic = Mapping[str, Mapping[str, Bytes]]

QUERIES = 128  # of a block's tile
WARPS = 4
ELEMENT = 2


def by_op(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens: Tensor | None = None, causal: bool = True,
          window: int | None = None, dropout_p: float = 0.0, dropout_seed: int = 0,
          scale: float | None = None) -> tuple[Tensor, Tensor]:
    seed = torch.tensor([dropout_seed]) if dropout_p else None
    return torch.ops.instructgpt_fast.attention(q, k, v, cu_seqlens, causal, window, dropout_p, seed,
                                                scale or q.shape[-1] ** -0.5)


def with_lse(forward: Callable[..., Tensor], exact: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """Adds the log-sum-exp to what an oracle or a yardstick gives: its softmax is taken before dropout."""

    def both(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens: Tensor | None = None, **options: Any,
             ) -> tuple[Tensor, Tensor]:
        band = {name: options[name] for name in ("causal", "window", "scale") if name in options}
        wide = torch.float64 if exact else torch.float32
        lse = log_sum_exp(q.to(wide), k.to(wide), cu_seqlens, **band)
        return forward(q, k, v, cu_seqlens=cu_seqlens, **options), lse.double() if exact else lse

    return both


class AttentionForward(OpSuite):
    """Outputs 0 and 1 are out and lse."""

    name = "attention"
    op = staticmethod(by_op)
    oracle = staticmethod(with_lse(attention_oracle, exact=True))
    yardstick = staticmethod(with_lse(test_attention.plain, exact=False))

    def looser(self, what: str, case: Case, dtype: torch.dtype) -> dict[str, Any]:
        if what != "output 1":
            return {}
        return {"rms_factor": 4.0, "max_factor": 4.0, "ulps": 4.0,
                "why_looser": "f32 sums of up to 128 products, one after the other, beside a library's pairwise ones"}


def traffic(inputs: Inputs, *, keys: int = 64, **band: Any) -> Traffic:
    """q, out and lse once, k and v for every tile of queries of every query head, the bounds by every warp."""
    heads, width = inputs["q"].shape[-2:]
    rows = inputs["q"].numel() // (heads * width)
    row = heads * width * ELEMENT
    brought = row * keys_brought(inputs, QUERIES, keys, **band)
    return {
        "attention": {
            "q": (row * queries_that_see(inputs, QUERIES, **band), 0),
            "k": (brought, 0), "v": (brought, 0),
            "out": (0, row * rows), "lse": (0, 4 * heads * rows),
            "cu_seqlens": (4 * WARPS * heads * bounds_read(inputs, QUERIES), 0),
        },
    }


class TestAttentionForwardByMma(KernelSuite):
    suite = AttentionForward
    equivalent: ClassVar = {
        ("shuffle_wrong_lane", "shuffle_xor(most, 2)"): "neighbouring lanes hold one maximum since the exchange before",
    }
    cases = (
        KernelCase("two tiles of queries, two heads a key head", dense(1, 136, 136, 2, 1, 64), torch.bfloat16,
                   traffic=traffic),
        KernelCase("width 80", dense(1, 72, 72, 1, 1, 80), torch.float16, traffic=traffic),
        KernelCase("width 96, all see all", dense(1, 8, 136, 1, 1, 96), torch.bfloat16, {"causal": False},
                   partial(traffic, causal=False)),
        KernelCase("width 128", dense(1, 104, 104, 1, 1, 128), torch.bfloat16, traffic=partial(traffic, keys=32)),
        KernelCase("window", dense(1, 200, 200, 1, 1, 64), torch.float16, {"window": 9}, partial(traffic, window=9)),
        KernelCase("large scores, whose top moves from tile to tile", dense(1, 40, 200, 1, 1, 64), torch.float16,
                   {"scale": 2.0, "causal": False}),
        KernelCase("packed", packed((8, 0, 72, 136), 1, 1, 64), torch.bfloat16, traffic=traffic),
        KernelCase("packed, ragged", packed((0, 5, 0, 1, 33, 0), 1, 1, 64), torch.bfloat16),
        KernelCase("more queries than keys", dense(2, 40, 11, 1, 1, 64), torch.bfloat16, traffic=traffic),
        KernelCase("a tile of queries that sees nothing", dense(1, 160, 16, 1, 1, 64), torch.bfloat16, traffic=traffic),
        KernelCase("dropout", dense(1, 40, 70, 2, 2, 64), torch.bfloat16, {"dropout_p": 0.4, "dropout_seed": 11}),
        KernelCase("dropout, half of its draws", dense(1, 8, 72, 1, 1, 128), torch.float16,
                   {"dropout_p": 0.4, "dropout_seed": -5}),
    )
