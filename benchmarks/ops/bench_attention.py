"""attention beside PyTorch's SDPA: dense batches of training shapes, ragged packed batches, a band; with gradients.

On a GPU the long sequences of benchmarks/ops/attention_on_gpu.py come first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from benchmarks.ops.attention_on_gpu import gpu_cases
from instructgpt_fast import ops

# Lengths of prompts with their answers, as a PPO or SFT batch has them.
RAGGED = (211, 64, 96, 256, 33, 120, 180, 75, 240, 51, 146, 99, 203, 38, 67, 169)


def draw(rows: tuple[int, ...], heads: int, width: int, dtype: torch.dtype, device: str, **extra: Any
         ) -> Callable[[int], Inputs]:
    """q, k, v as the three parts of one projection, as a model has them, and a gradient for the output."""

    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        fused = torch.randn(*rows, 3, heads, width, generator=generator, device=device).to(dtype)
        gradient = torch.randn(*rows, heads, width, generator=generator, device=device).to(dtype)
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in extra.items()}
        return {"fused": fused, "gradient": gradient, **moved}

    return inputs


def evaluated(function: Callable[..., Tensor]) -> Contender:
    """The contender: the output and, unless the case is forward only, the gradients of q, k, v."""

    def contender(inputs: Inputs) -> Sequence[Tensor]:
        options = {k: v for k, v in inputs.items() if k not in ("fused", "gradient", "forward_only")}
        train = not inputs.get("forward_only")
        q, k, v = (part.detach().requires_grad_(train) for part in inputs["fused"].unbind(-3))
        out = function(q, k, v, **options)
        return [out.detach(), *(torch.autograd.grad(out, (q, k, v), inputs["gradient"]) if train else ())]

    return contender


def sdpa(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
    """SDPA on dense batches; packed sequences one by one."""
    if cu_seqlens is not None:
        bounds = cu_seqlens.tolist()
        return torch.cat([
            sdpa(q[None, a:b], k[None, a:b], v[None, a:b])[0] for a, b in zip(bounds[:-1], bounds[1:], strict=True)
        ])
    mask = None
    if window is not None:
        place = torch.arange(q.shape[1], device=q.device)
        distance = place[:, None] - place
        mask = (distance >= 0) & (distance < window)
    heads_first = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(*heads_first, attn_mask=mask, is_causal=mask is None).transpose(1, 2)


def padded_sdpa(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens: Tensor) -> Tensor:
    """What people do without packing: pad on the right, run one dense batch, take the rows back out."""
    lengths = cu_seqlens.diff().long()
    place = torch.arange(int(lengths.max()), device=q.device) < lengths[:, None]
    dense = []
    for t in (q, k, v):
        buffer = t.new_zeros(*place.shape, *t.shape[1:])
        buffer[place] = t
        dense.append(buffer)
    return sdpa(*dense)[place]


def cases(device: str) -> Sequence[Case]:
    """Training shapes of small models, packed and banded ones; on a GPU eight times as many rows, after long ones."""
    scale = 8 if device == "cuda" else 1
    bounds = torch.tensor([0, *RAGGED]).cumsum(0).int()
    pairs = sum(n * n for n in RAGGED)
    shapes = [("16 x 128", (16 * scale, 128), 16 * scale * 128**2), ("8 x 256", (8 * scale, 256), 8 * scale * 256**2),
              ("2 x 1024", (2 * scale, 1024), 2 * scale * 1024**2)]
    found = gpu_cases(device) if device == "cuda" else []
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for label, rows, scores in shapes:
            found.append(_case(f"{label} {name}", rows, dtype, device, scores))
        found.append(_case(f"8 x 256 forward {name}", (8 * scale, 256), dtype, device, 8 * scale * 256**2,
                           forward_only=True))
        found.append(_case(f"2 x 1024 window 128 {name}", (2 * scale, 1024), dtype, device, 0, window=128))
        found.append(_case(f"packed 33..256 {name}", (sum(RAGGED),), dtype, device, pairs, cu_seqlens=bounds))
    return found


def _case(name: str, rows: tuple[int, ...], dtype: torch.dtype, device: str, scores: int, heads: int = 4,
          width: int = 64, **extra: Any) -> Case:
    """scores: query-key pairs of all sequences; a causal pass computes half of them, backward costs 2.5 forwards."""
    rivals = {"sdpa": evaluated(sdpa)}
    if "cu_seqlens" in extra:
        rivals = {"sdpa, one by one": evaluated(sdpa), "sdpa, padded": evaluated(padded_sdpa)}
    passes = 1.0 if extra.get("forward_only") else 3.5
    return Case(
        name=name,
        draw=draw(rows, heads, width, dtype, device, **extra),
        ours=evaluated(ops.attention),
        rivals=rivals,
        oracle=evaluated(ops.attention_oracle),
        flops=passes * 2.0 * scores * heads * width,
        dtype=dtype,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    run("attention", cases, arguments)
