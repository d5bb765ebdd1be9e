"""Folds biases and scale of attention into other weights, for a class that has neither: GPT-Neo's.

With x the normed input of a layer, W and b the projections' weights and biases, s = 1 / sqrt(d_head), and delta a
solution of W_q delta = b_q, the bias of ln_1 grows by delta and the query's weight is scaled by s. Then
  queries   s W_q (x + delta) = s (W_q x + b_q), as before;
  keys      W_k (x + delta) differs from W_k x + b_k by a vector that is the same at every position: it adds the same
            number to all scores of a query, and the softmax does not see it;
  values    W_v (x + delta) differs from W_v x + b_v by W_v delta - b_v at every position, and so does their average
            with weights that sum to 1: the output projection's bias takes it back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.model import GPTConfig

LARGEST_DEVIATION = 1e-4
"""Of a logit, as a share of the largest one (of 1 when all are smaller)."""

# Directions of the solution whose singular value is a smaller share of the largest are left out: they would carry
# rounding errors. What suits depends on the weights, so the second is tried when the first does not do.
_CUTOFFS = {torch.float32: (1e-6, 1e-4), torch.bfloat16: (3e-3, 3e-2), torch.float16: (3e-3, 3e-4)}
_ROWS, _LONGEST = 2, 512


@torch.no_grad()
def fold_attention(weights: Mapping[str, Tensor], config: GPTConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return f32 weights of an equal model without biases of queries, keys, values, and without scale of the scores.

    weights: those of a `GPT` by name, in f32, bf16 or f16. dtype: the type in which the result will be stored and run.
    Logits of random tokens are compared with those of the original in f64. Raises CheckpointError when one moves by
    more than LARGEST_DEVIATION and, in half precision, by more than twice what running the original in it moves.
    """
    generator = torch.Generator().manual_seed(0)
    length = min(config.n_positions, _LONGEST, max(64, 2 * (config.band_width or 1)))
    tokens = torch.randint(config.vocab_size, (_ROWS, length), generator=generator)
    scale = 1 / math.sqrt(config.d_head)
    exact = _logits(weights, config, tokens, torch.float64, scale)
    size = max(1.0, float(exact.abs().max()))
    allowed = LARGEST_DEVIATION * size
    if dtype != torch.float32:
        allowed = max(allowed, 2 * _moved(_logits(weights, config, tokens, dtype, scale), exact))
    measured = []
    for cutoff in _CUTOFFS[dtype]:
        folded = _folded(weights, config, cutoff)
        measured.append(_moved(_logits(folded, config, tokens, dtype, 1.0), exact))
        if measured[-1] <= allowed:
            return folded
    raise CheckpointError(
        f"export: folding the query biases into ln_1 may move logits by at most {allowed / size:.2g} of their size, "
        f"got {min(measured) / size:.2g} in {dtype}: a layer's query weights are nearly singular, and GPT-Neo's, the "
        "only class with windows, has no query biases; export in fp32, or train with band_width=None."
    )


def _folded(weights: Mapping[str, Tensor], config: GPTConfig, cutoff: float) -> dict[str, Tensor]:
    folded = {name: tensor.detach().float() for name, tensor in weights.items()}
    for layer in range(config.n_layer):
        name = f"h.{layer}."
        weight, bias = weights[f"{name}attn.c_attn.weight"].double(), weights[f"{name}attn.c_attn.bias"].double()
        (w_q, _, w_v), (b_q, _, b_v) = weight.chunk(3), bias.chunk(3)
        delta = torch.linalg.lstsq(w_q, b_q.unsqueeze(1), rcond=cutoff, driver="gelsd").solution.squeeze(1)
        scaled = weight.clone()
        scaled[: config.d_model] /= math.sqrt(config.d_head)
        out_weight = weights[f"{name}attn.c_proj.weight"].double()
        changed = {
            "ln_1.bias": weights[f"{name}ln_1.bias"].double() + delta,
            "attn.c_attn.weight": scaled,
            "attn.c_attn.bias": torch.zeros_like(bias),
            "attn.c_proj.bias": weights[f"{name}attn.c_proj.bias"].double() + out_weight @ (b_v - w_v @ delta),
        }
        folded |= {f"{name}{key}": tensor.float() for key, tensor in changed.items()}
    return folded


def _moved(logits: Tensor, exact: Tensor) -> float:
    return float((logits.double() - exact).abs().max())


def _logits(
    weights: Mapping[str, Tensor], config: GPTConfig, tokens: Tensor, dtype: torch.dtype, scale: float
) -> Tensor:
    """Plain forward pass with everything in `dtype`; scale: of the attention scores. Returns [B, T, vocab_size]."""
    def take(name: str) -> Tensor:
        return weights[name].to(dtype)

    def norm(x: Tensor, name: str) -> Tensor:
        bias = take(f"{name}.bias")
        return functional.layer_norm(x, x.shape[-1:], take(f"{name}.weight"), bias, config.layer_norm_eps)

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, take(f"{name}.weight"), take(f"{name}.bias"))

    rows, length = tokens.shape
    distance = torch.arange(length).unsqueeze(1) - torch.arange(length)
    embedding = take("wte.weight")
    x = embedding[tokens] + take("wpe.weight")[:length]
    for layer in range(config.n_layer):
        name = f"h.{layer}."
        window = config.window(layer) or length
        qkv = linear(norm(x, f"{name}ln_1"), f"{name}attn.c_attn").view(rows, length, 3, config.n_head, config.d_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        hidden = (distance < 0) | (distance >= window)
        scores = (q @ k.transpose(-1, -2) * scale).masked_fill(hidden, -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        x = x + linear(mixed, f"{name}attn.c_proj")
        wide = functional.gelu(linear(norm(x, f"{name}ln_2"), f"{name}mlp.c_fc"), approximate="tanh")
        x = x + linear(wide, f"{name}mlp.c_proj")
    return norm(x, "ln_f") @ embedding.T
