"""Arithmetic that a stage's method needs, counted from shapes: matrix products and attention, and nothing else.

The rule is that of Chowdhery et al. 2022 (PaLM, arXiv:2204.02311, appendix B): 2 FLOPs a weight and token forward and
twice as many backward, so 6 N a token, with the attention term beside it; what is computed twice to save memory counts
once. Departures [O]: attention counts only the keys that a token sees (half of a full square, less in a band), and the
output layer only the tokens whose prediction is used.
Not covered: optimizer, layer norms, GELU, sampling; they are memory's work, not the arithmetic units'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from instructgpt_fast.model import GPTConfig

__all__ = ["FORMULA", "TRAINING", "batch_flops", "forward_flops"]

# Forward and backward of one batch, as a multiple of its forward pass.
TRAINING = 3

FORMULA = (
    "forward: 2 FLOPs a matrix weight and token, 4 d_model a layer and pair of token and key it sees, output layer "
    "where a prediction is used; backward: twice that (PaLM, arXiv:2204.02311, appendix B)"
)


def forward_flops(config: GPTConfig, lengths: Iterable[int], outputs: int) -> float:
    """FLOPs of one forward pass over sequences of these lengths, `outputs` of whose tokens reach the output layer."""
    sizes = list(lengths)
    width = config.d_model
    weights = config.n_layer * (4 * width * width + 2 * width * config.feed_forward)
    pairs = sum(_pairs(size, config.window(layer)) for layer in range(config.n_layer) for size in sizes)
    return 2.0 * weights * sum(sizes) + 4.0 * width * pairs + 2.0 * width * config.vocab_size * outputs


def batch_flops(config: GPTConfig, tensors: Mapping[str, Tensor], outputs: int) -> float:
    """FLOPs of training on one batch: "tokens" int64 [E, T], or [N] packed with "cu_seqlens" int32 [S + 1]."""
    return TRAINING * forward_flops(config, _lengths(tensors), outputs)


def _lengths(tensors: Mapping[str, Tensor]) -> Sequence[int]:
    if "cu_seqlens" in tensors:
        found: list[int] = tensors["cu_seqlens"].diff().tolist()
        return found
    rows, length = tensors["tokens"].shape
    return [length] * rows


def _pairs(length: int, band: int | None) -> float:
    # Token t sees t tokens, its own included, and at most the band.
    seen = length if band is None else min(length, band)
    return seen * (seen + 1) / 2 + (length - seen) * seen
