"""One call of each op on random inputs of a given shape, for `python -m instructgpt_fast.simt`.

Not covered: inputs that reach every branch of a kernel; those stand in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from instructgpt_fast import ops


@dataclass
class Draw:
    """Draws inputs: seeded, floats in one dtype, with gradients where the backward pass is asked for."""

    dtype: torch.dtype
    grad: bool
    generator: torch.Generator
    drawn: list[Tensor] = field(default_factory=list)  # what an op may write into, or give gradients

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Normal numbers that take part in the backward pass."""
        return self.constant(*shape, dtype=dtype).requires_grad_(self.grad)

    def constant(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Normal numbers that do not."""
        return self.keep(torch.randn(shape, generator=self.generator).to(dtype or self.dtype))

    def keep(self, tensor: Tensor) -> Tensor:
        """The same tensor, noted as one that the op may write into."""
        self.drawn.append(tensor)
        return tensor

    def ints(self, high: int, *shape: int) -> Tensor:
        """int64 in [0, high)."""
        return torch.randint(0, high, shape, generator=self.generator)

    def mask(self, *shape: int) -> Tensor:
        """Bools, three quarters of them True."""
        return torch.rand(shape, generator=self.generator) < 0.75


@dataclass(frozen=True)
class Example:
    """What the numbers of --shape mean, which are taken without it, and the call, which returns the op's outputs."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    call: Callable[..., Sequence[Tensor]]


F32 = torch.float32


def _adamw(draw: Draw, count: int) -> Sequence[Tensor]:
    param = draw.constant(count)
    moments = [draw.keep(torch.zeros(count))], [draw.keep(torch.zeros(count))]
    masters = None if draw.dtype == F32 else [draw.keep(param.float())]
    step = draw.keep(torch.zeros(1, dtype=torch.int64))
    applied = ops.adamw([param], [draw.constant(count)], *moments, step, lr=1e-3, betas=(0.9, 0.95), eps=1e-8,
                        weight_decay=0.1, masters=masters, grad_norm=torch.ones(()), max_grad_norm=1.0)
    return (applied,)


def _attention(draw: Draw, batch: int, length: int, heads: int, width: int) -> Sequence[Tensor]:
    return (ops.attention(*(draw(batch, length, heads, width) for _ in range(3))),)


def _attention_decode(draw: Draw, rows: int, cached: int, heads: int, width: int) -> Sequence[Tensor]:
    page = 16
    pages = cached // page + 1  # of each row; the new token's included
    q, k, v = (draw.constant(rows, 1, heads, width) for _ in range(3))
    k_cache, v_cache = (draw.constant(rows * pages, page, heads, width) for _ in range(2))
    table = torch.arange(rows * pages, dtype=torch.int32).view(rows, pages)
    cache_lens = torch.full((rows,), cached, dtype=torch.int32)
    return (ops.attention_decode(q, k, v, k_cache, v_cache, table, cache_lens),)


def _embedding(draw: Draw, tokens: int, vocabulary: int, width: int) -> Sequence[Tensor]:
    positions = torch.arange(tokens) % 64
    return (ops.embedding(draw.ints(vocabulary, tokens), positions, draw(vocabulary, width), draw(64, width)),)


def _gae(draw: Draw, rows: int, length: int) -> Sequence[Tensor]:
    rewards, values = (draw.constant(rows, length, dtype=F32) for _ in range(2))
    return ops.gae(rewards, values, draw.mask(rows, length))


def _invariant_linear(draw: Draw, rows: int, inputs: int, outputs: int) -> Sequence[Tensor]:
    x, weight, bias = draw.constant(rows, inputs), draw.constant(outputs, inputs), draw.constant(outputs)
    return (ops.invariant_linear(x, weight, bias),)


def _linear_cross_entropy(draw: Draw, rows: int, width: int, vocabulary: int) -> Sequence[Tensor]:
    return (ops.linear_cross_entropy(draw(rows, width), draw(vocabulary, width), draw.ints(vocabulary, rows)),)


def _ppo_loss(draw: Draw, rows: int, length: int) -> Sequence[Tensor]:
    shape = (rows, length)
    logprobs, values, entropy = (draw(*shape, dtype=F32) for _ in range(3))
    old_logprobs, advantages, old_values, returns = (draw.constant(*shape, dtype=F32) for _ in range(4))
    result = ops.ppo_loss(
        logprobs, old_logprobs, advantages, values, old_values, returns, draw.mask(*shape), cliprange=0.2,
        cliprange_value=0.2, vf_coef=0.1, denominator=float(rows * length), entropy=entropy, entropy_coef=0.01,
    )
    return (result.loss,)


def _ranking_loss(draw: Draw, prompts: int, answers: int) -> Sequence[Tensor]:
    offsets = torch.arange(prompts + 1) * answers
    ranks = draw.ints(answers, prompts * answers) + 1
    return (ops.ranking_loss(draw(prompts * answers, dtype=F32), ranks, offsets).loss,)


def _sample_token(draw: Draw, rows: int, vocabulary: int) -> Sequence[Tensor]:
    logits, seeds = draw.constant(rows, vocabulary), draw.ints(1 << 40, rows)
    return ops.sample_token(logits, seeds, torch.arange(rows), temperature=0.7, top_k=50, top_p=0.9)


def _token_logprobs(draw: Draw, rows: int, width: int, vocabulary: int) -> Sequence[Tensor]:
    return ops.token_logprobs(draw(rows, width), draw(vocabulary, width), draw.ints(vocabulary, rows))


EXAMPLES: dict[str, Example] = {
    "adamw": Example(("elements",), (1000,), _adamw),
    "attention": Example(("batch", "length", "heads", "width"), (1, 32, 2, 32), _attention),
    "attention_decode": Example(("rows", "cached", "heads", "width"), (2, 40, 2, 32), _attention_decode),
    "bias_gelu": Example(("rows", "width"), (8, 256), lambda draw, n, d: (ops.bias_gelu(draw(n, d), draw(d)),)),
    "embedding": Example(("tokens", "vocabulary", "width"), (16, 100, 64), _embedding),
    "gae": Example(("sequences", "length"), (4, 48), _gae),
    "grad_norm": Example(("elements",), (5000,), lambda draw, n: (ops.grad_norm([draw.constant(n)]),)),
    "invariant_linear": Example(("rows", "inputs", "outputs"), (4, 256, 64), _invariant_linear),
    "layer_norm": Example(
        ("rows", "width"), (8, 256), lambda draw, n, d: (ops.layer_norm(draw(n, d), draw(d), draw(d)),)
    ),
    "linear_cross_entropy": Example(("rows", "width", "vocabulary"), (8, 32, 300), _linear_cross_entropy),
    "masked_whiten": Example(
        ("sequences", "length"), (4, 48),
        lambda draw, n, t: (ops.masked_whiten(draw.constant(n, t, dtype=F32), draw.mask(n, t)),),
    ),
    "ppo_loss": Example(("sequences", "length"), (4, 48), _ppo_loss),
    "ranking_loss": Example(("prompts", "answers"), (4, 6), _ranking_loss),
    "sample_token": Example(("rows", "vocabulary"), (2, 1000), _sample_token),
    "token_logprobs": Example(("rows", "width", "vocabulary"), (8, 32, 300), _token_logprobs),
}
