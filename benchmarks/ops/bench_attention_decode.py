"""attention_decode beside PyTorch: SDPA over a contiguous cache, with a mask where lengths differ, the usual way.

The contiguous cache is as long as the longest row needs, which a server would have to know; ours reads pages of 16 in
random order. Bytes: every cached key and value once, and the new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.op_benchmark import Case, Inputs, run
from instructgpt_fast import ops

PAGE = 16


@dataclass(frozen=True)
class Shape:
    """Rows with `lengths` cached tokens, to each of which `tokens` come."""

    lengths: tuple[int, ...]
    heads: int
    kv_heads: int
    width: int
    tokens: int = 1

    def moved_bytes(self, itemsize: int) -> float:
        """What must be read at least: q, k, v of new tokens and the results are a thousandth more."""
        return 2.0 * sum(n + self.tokens for n in self.lengths) * self.kv_heads * self.width * itemsize


def draw(shape: Shape, dtype: torch.dtype, device: str) -> Callable[[int], Inputs]:
    """Pages dealt out in random order, and the same cache as one dense tensor [B, Hkv, T, D]."""

    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        rows, longest = len(shape.lengths), max(shape.lengths) + shape.tokens
        per_row = -(-longest // PAGE)
        table = torch.randperm(rows * per_row, generator=generator, device=device).view(rows, per_row).int()

        def new(*sizes: int) -> Tensor:
            return torch.randn(sizes, generator=generator, device=device).to(dtype)

        caches = [new(rows * per_row, PAGE, shape.kv_heads, shape.width) for _ in range(2)]
        dense = [cache[table.long()].flatten(1, 2)[:, :longest].transpose(1, 2).contiguous() for cache in caches]
        return {
            "q": new(rows, shape.tokens, shape.heads, shape.width),
            "k": new(rows, shape.tokens, shape.kv_heads, shape.width),
            "v": new(rows, shape.tokens, shape.kv_heads, shape.width),
            "k_cache": caches[0], "v_cache": caches[1], "block_table": table,
            "cache_lens": torch.tensor(shape.lengths, dtype=torch.int32).to(device),
            "dense_k": dense[0], "dense_v": dense[1],
        }

    return inputs


def paged(function: Callable[..., Tensor]) -> Callable[[Inputs], Sequence[Tensor]]:
    """The contender that uses the pages."""
    return lambda inputs: [function(**{n: v for n, v in inputs.items() if not n.startswith("dense")})]


def dense(shape: Shape) -> Callable[[Inputs], Sequence[Tensor]]:
    """Write the new keys and values into a dense cache, and attend to all of it; behind a mask unless all see all."""
    masked = len(set(shape.lengths)) > 1 or shape.tokens > 1

    def contender(inputs: Inputs) -> Sequence[Tensor]:
        keys, values = inputs["dense_k"], inputs["dense_v"]
        rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
        own = inputs["cache_lens"].long()[:, None] + torch.arange(shape.tokens, device=keys.device)  # [B, T]
        keys[rows, :, own], values[rows, :, own] = inputs["k"], inputs["v"]
        mask = torch.arange(keys.shape[2], device=keys.device) <= own[..., None] if masked else None
        out = F.scaled_dot_product_attention(
            inputs["q"].transpose(1, 2), keys, values, attn_mask=None if mask is None else mask[:, None],
            enable_gqa=shape.heads != shape.kv_heads,
        )
        return [out.transpose(1, 2)]

    return contender


def shapes(device: str) -> dict[str, Shape]:
    """On the CPU one row, a sampling batch of ragged rows, a batch of long rows; on a GPU GPT-2 XL and others."""
    ragged = tuple(33 + 14 * i for i in range(16))
    if device == "cpu":
        return {
            "1 row of 256": Shape((256,), 4, 4, 64),
            "16 rows of 33..250": Shape(ragged, 4, 4, 64),
            "32 rows of 1000": Shape((1000,) * 32, 4, 4, 64),
        }
    return {
        "1 row of 1023, 25 heads of 64": Shape((1023,), 25, 25, 64),
        "1 row of 1023, 32 on 8 heads of 128": Shape((1023,), 32, 8, 128),
        "1 row of 32767, 32 on 8 heads of 128": Shape((32767,), 32, 8, 128),
        "64 rows of 1023, 25 heads of 64": Shape((1023,) * 64, 25, 25, 64),
        "64 rows of 1023, 32 heads of 80": Shape((1023,) * 64, 32, 32, 80),
        "64 rows of 1023, 32 on 8 heads of 128": Shape((1023,) * 64, 32, 8, 128),
        "64 rows of 1023, 40 heads of 128": Shape((1023,) * 64, 40, 40, 128),
        "64 rows of 33..1986, 25 heads of 64": Shape(tuple(33 + 31 * i for i in range(64)), 25, 25, 64),
        "8 rows of 1020, 4 tokens, 25 heads of 64": Shape((1020,) * 8, 25, 25, 64, 4),
    }


def cases(device: str) -> Sequence[Case]:
    """Every shape, in f32 and bf16 on the CPU, in bf16 on a GPU; there the check has at most two rows."""
    found = []
    for dtype in (torch.float32, torch.bfloat16) if device == "cpu" else (torch.bfloat16,):
        for label, shape in shapes(device).items():
            few = Shape(shape.lengths[-2:], shape.heads, shape.kv_heads, shape.width, shape.tokens)
            found.append(Case(
                name=f"{label} {str(dtype).removeprefix('torch.')}",
                draw=draw(shape, dtype, device),
                draw_check=draw(shape if device == "cpu" else few, dtype, device),
                ours=paged(ops.attention_decode),
                rivals={"sdpa, dense cache": dense(shape)},
                oracle=paged(ops.attention_decode_oracle),
                moved_bytes=shape.moved_bytes(dtype.itemsize),
                dtype=dtype,
            ))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    with torch.no_grad():
        run("attention_decode", cases, arguments)
