"""embedding beside PyTorch's two look-ups and a sum, with the gradients of both tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops


def draw(batch: int, length: int, vocab: int, width: int, dtype: torch.dtype, device: str, *, skewed: bool
         ) -> Callable[[int], Inputs]:
    """Ids and tables; skewed: a few tokens take most places, as in text (and as padding does)."""

    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        tokens = torch.randint(vocab, (batch, length), generator=generator, device=device)
        if skewed:
            share = torch.rand(batch, length, generator=generator, device=device)
            tokens = torch.where(share < 0.6, tokens % 20, tokens)
        tables = {"token_weight": (vocab, width), "position_weight": (length, width)}
        drawn = {
            name: torch.randn(shape, generator=generator, device=device).to(dtype) for name, shape in tables.items()
        }
        gradient = torch.randn(batch, length, width, generator=generator, device=device).to(dtype)
        positions = torch.arange(length, device=device).expand(batch, length)
        return {"tokens": tokens, "position_ids": positions, **drawn, "gradient": gradient}

    return inputs


def evaluated(function: Callable[..., Tensor]) -> Contender:
    """The contender: y and the gradients of both tables."""

    def contender(inputs: Inputs) -> Sequence[Tensor]:
        words, places = (inputs[name].detach().requires_grad_() for name in ("token_weight", "position_weight"))
        y = function(inputs["tokens"], inputs["position_ids"], words, places)
        return [y.detach(), *torch.autograd.grad(y, (words, places), inputs["gradient"])]

    return contender


def plain(tokens: Tensor, position_ids: Tensor, token_weight: Tensor, position_weight: Tensor) -> Tensor:
    return F.embedding(tokens, token_weight) + F.embedding(position_ids, position_weight)


def cases(device: str) -> Sequence[Case]:
    """A small model's and GPT-2's vocabulary; on a GPU GPT-2's 124M and 1558M, at the tokens of a training step."""
    found = []
    length, sizes = (1024, ((50257, 768), (50257, 1600))) if device == "cuda" else (128, ((8192, 256), (50257, 768)))
    for vocab, width in sizes:
        for dtype in (torch.float32, torch.bfloat16):
            for skewed in (False, True):
                name = f"16 x {length}, {vocab} x {width} {str(dtype).removeprefix('torch.')}"
                # Reads two rows and writes one a token, reads the gradient twice, writes both tables' gradients.
                moved = (5.0 * 16 * length + vocab + length) * width * dtype.itemsize
                found.append(Case(
                    name=name + (" skewed" if skewed else ""),
                    draw=draw(16, length, vocab, width, dtype, device, skewed=skewed),
                    ours=evaluated(ops.embedding),
                    rivals={"plain": evaluated(plain)},
                    oracle=evaluated(ops.embedding_oracle),
                    moved_bytes=moved,
                    dtype=dtype,
                ))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    run("embedding", cases, arguments)
