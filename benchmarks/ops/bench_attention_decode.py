"""attention_decode beside PyTorch: SDPA over a contiguous cache with a mask for the rows' lengths, the usual way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.op_benchmark import Case, Inputs, run
from instructgpt_fast import ops

PAGE = 16


def draw(lengths: tuple[int, ...], heads: int, width: int, dtype: torch.dtype, device: str) -> Callable[[int], Inputs]:
    """Rows with `lengths` cached tokens: pages dealt out in random order, and the same cache as one dense tensor."""

    def inputs(seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        per_row = max(lengths) // PAGE + 1
        rows = len(lengths)
        table = torch.randperm(rows * per_row, generator=generator).view(rows, per_row).int()
        step = torch.randn(3, rows, 1, heads, width, generator=generator).to(dtype)
        caches = torch.randn(2, rows * per_row, PAGE, heads, width, generator=generator).to(dtype)
        contiguous = [cache[table.long()].flatten(1, 2).transpose(1, 2).contiguous() for cache in caches]
        lens = torch.tensor(lengths, dtype=torch.int32)
        drawn = {
            "q": step[0], "k": step[1], "v": step[2], "k_cache": caches[0], "v_cache": caches[1],
            "block_table": table, "cache_lens": lens, "dense_k": contiguous[0], "dense_v": contiguous[1],
        }
        return {name: value.to(device) for name, value in drawn.items()}

    return inputs


def paged(function: Callable[..., Tensor]) -> Callable[[Inputs], Sequence[Tensor]]:
    """The contender that uses the pages."""
    return lambda inputs: [function(**{n: v for n, v in inputs.items() if not n.startswith("dense")})]


def dense(inputs: Inputs) -> Sequence[Tensor]:
    """Write the new key and value into a dense cache [B, H, T, D], and attend to all of it behind a mask."""
    keys, values, lens = inputs["dense_k"], inputs["dense_v"], inputs["cache_lens"].long()
    row = torch.arange(len(lens), device=lens.device)
    keys[row, :, lens], values[row, :, lens] = inputs["k"][:, 0], inputs["v"][:, 0]
    longest = int(lens.max()) + 1
    mask = (torch.arange(longest, device=lens.device) <= lens[:, None])[:, None, None]
    out = F.scaled_dot_product_attention(
        inputs["q"].transpose(1, 2), keys[:, :, :longest], values[:, :, :longest], attn_mask=mask
    )
    return [out.transpose(1, 2)]


def cases(device: str) -> Sequence[Case]:
    """One row, a sampling batch of ragged rows, and a batch of long rows."""
    batches = {
        "1 row of 256": (256,),
        "16 rows of 33..250": tuple(33 + 14 * i for i in range(16)),
        "32 rows of 1000": (1000,) * 32,
    }
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for label, lengths in batches.items():
            read = 2.0 * sum(n + 1 for n in lengths) * 4 * 64 * dtype.itemsize
            found.append(Case(
                name=f"{label} {str(dtype).removeprefix('torch.')}",
                draw=draw(lengths, 4, 64, dtype, device),
                ours=paged(ops.attention_decode),
                rivals={"sdpa, dense cache": dense},
                oracle=paged(ops.attention_decode_oracle),
                moved_bytes=read,
                dtype=dtype,
            ))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    with torch.no_grad():
        run("attention_decode", cases, arguments)
