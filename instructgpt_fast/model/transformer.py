"""The GPT-2/GPT-3 transformer: pre-norm blocks, learned positions, tied embeddings, dense and banded attention.

Not covered: logits are never formed in `forward`; losses take the hidden states and `lm_weight` and work in chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from instructgpt_fast import ops
from instructgpt_fast.model.config import GPTConfig
from instructgpt_fast.model.positions import packed_positions

INIT_STD = 0.02


class LayerNorm(nn.Module):
    """Layer norm with f32 statistics whatever the dtype, able to add the residual stream on the way in."""

    def __init__(self, width: int, eps: float, **place: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width, **place))
        self.bias = nn.Parameter(torch.zeros(width, **place))

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (layer_norm(x + residual), x + residual), both [..., D]; x itself when there is no residual."""
        if residual is None:
            return ops.layer_norm(x, self.weight, self.bias, eps=self.eps), x
        return ops.layer_norm(x, self.weight, self.bias, residual=residual, eps=self.eps)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, config: GPTConfig, layer: int, **place: Any) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.d_head = config.d_head
        self.window = config.window(layer)
        self.c_attn = nn.Linear(config.d_model, 3 * config.d_model, **place)
        self.c_proj = nn.Linear(config.d_model, config.d_model, **place)

    def forward(self, x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        """Attend within each sequence of x, [B, T, D] or packed [N, D]; returns the same shape."""
        # The three are strided views of one buffer: attention reads them in place.
        q, k, v = self.c_attn(x).view(*x.shape[:-1], 3, self.n_head, self.d_head).unbind(-3)
        mixed = ops.attention(q, k, v, causal=True, window=self.window, cu_seqlens=cu_seqlens)
        return self.c_proj(mixed.reshape(x.shape))


class MLP(nn.Module):
    """Position-wise feed-forward layer with GPT-2's tanh approximation of GELU."""

    def __init__(self, config: GPTConfig, **place: Any) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.d_model, config.feed_forward, **place)
        self.c_proj = nn.Linear(config.feed_forward, config.d_model, **place)

    def forward(self, x: Tensor) -> Tensor:
        """Return c_proj(gelu(c_fc(x))), [..., D]."""
        wide = functional.linear(x, self.c_fc.weight)
        return self.c_proj(ops.bias_gelu(wide, self.c_fc.bias, approximate="tanh"))


class Block(nn.Module):
    """One transformer layer. The branch it returns is not yet added to the stream: the next layer norm does that."""

    def __init__(self, config: GPTConfig, layer: int, **place: Any) -> None:
        super().__init__()
        self.dropout = config.residual_dropout
        self.ln_1 = LayerNorm(config.d_model, config.layer_norm_eps, **place)
        self.attn = Attention(config, layer, **place)
        self.ln_2 = LayerNorm(config.d_model, config.layer_norm_eps, **place)
        self.mlp = MLP(config, **place)

    def forward(
        self, branch: Tensor, stream: Tensor | None, cu_seqlens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Take (branch, stream) whose sum enters the layer and return the (branch, stream) that leaves it."""
        normed, stream = self.ln_1(branch, stream)
        branch = self._drop(self.attn(normed, cu_seqlens))
        normed, stream = self.ln_2(branch, stream)
        return self._drop(self.mlp(normed)), stream

    def _drop(self, branch: Tensor) -> Tensor:
        return functional.dropout(branch, self.dropout, self.training) if self.dropout and self.training else branch


def _table(rows: int, width: int, **place: Any) -> nn.Embedding:
    # nn.Embedding's own constructor would draw weights only for reset_parameters to draw them again.
    return nn.Embedding.from_pretrained(torch.empty(rows, width, **place), freeze=False)


class GPT(nn.Module):
    """GPT-2/GPT-3 language model (Radford et al. 2019; Brown et al. 2020, arXiv:2005.14165, section 2.1).

    Parameter names follow GPT-2's (wte, wpe, h.0.ln_1, h.0.attn.c_attn, ...); linear weights are [out, in].
    activation_checkpointing: when True, training keeps only the inputs of each block and runs it again in backward.
    """

    def __init__(
        self, config: GPTConfig, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Build the model with fresh weights drawn from torch's global generator."""
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.wte = _table(config.vocab_size, config.d_model, **place)
        self.wpe = _table(config.n_positions, config.d_model, **place)
        self.h = nn.ModuleList(Block(config, layer, **place) for layer in range(config.n_layer))
        self.ln_f = LayerNorm(config.d_model, config.layer_norm_eps, **place)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw fresh weights: N(0, 0.02), the two projections into the stream N(0, 0.02 / sqrt(2 n_layer)), biases 0.

        Source of the scaling: Radford et al. 2019, section 2.3.
        """
        if self.wte.weight.is_meta:
            return  # without memory there is nothing to fill, and torch imports its compiler to pretend
        into_stream = INIT_STD / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                parameter.normal_(0.0, into_stream if name.endswith("c_proj.weight") else INIT_STD)

    @property
    def lm_weight(self) -> Tensor:
        """Weight of the output layer, [vocab_size, D]: the token embedding itself."""
        return self.wte.weight

    def forward(
        self, tokens: Tensor, *, cu_seqlens: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """Return the hidden states after the last layer norm.

        tokens: int64 [B, T], every row one sequence; or packed [N] with cu_seqlens.
        cu_seqlens: int32 [S + 1], boundaries of the packed sequences; attention stays inside each one.
        position_ids: int64 of the shape of tokens; by default each sequence counts from 0.
        Returns [B, T, D] or [N, D] in the dtype of the weights.
        Raises ValueError when a sequence is longer than n_positions or the shapes contradict each other.
        """
        self._check(tokens, cu_seqlens)
        if position_ids is None:
            position_ids = packed_positions(tokens, cu_seqlens, self.config.n_positions)
        branch = ops.embedding(tokens, position_ids, self.wte.weight, self.wpe.weight)
        if self.training and self.config.residual_dropout:
            branch = functional.dropout(branch, self.config.residual_dropout, True)
        stream: Tensor | None = None
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            if recompute:
                branch, stream = checkpoint(block, branch, stream, cu_seqlens, use_reentrant=False)
            else:
                branch, stream = block(branch, stream, cu_seqlens)
        hidden, _ = self.ln_f(branch, stream)
        return hidden

    @property
    def blocks(self) -> list[Block]:
        """The layers in order."""
        return list(cast("Iterable[Block]", self.h))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return hidden @ lm_weight.T, [..., vocab_size]: for inspection and decoding, not for losses."""
        return functional.linear(hidden, self.lm_weight)

    def _check(self, tokens: Tensor, cu_seqlens: Tensor | None) -> None:
        if tokens.dim() != (2 if cu_seqlens is None else 1):
            wanted = "[B, T] without cu_seqlens" if cu_seqlens is None else "[N] with cu_seqlens"
            raise ValueError(f"GPT: tokens must be {wanted}, got shape {tuple(tokens.shape)}.")
        if tokens.dtype != torch.int64:
            raise ValueError(f"GPT: tokens must be int64, got {tokens.dtype}; convert them with .long().")
