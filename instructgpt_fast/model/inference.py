"""Prefill and decode: the transformer's forward pass over a KV cache, without gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from instructgpt_fast import ops
from instructgpt_fast.model.kv_cache import KVCache
from instructgpt_fast.model.positions import packed_positions

_raw = torch.ops.instructgpt_fast

if TYPE_CHECKING:
    from instructgpt_fast.model.transformer import GPT, Block, LayerNorm


# A transposed copy costs about as much as it saves in this many steps.
TRANSPOSE_AFTER = 8


class _Layer(NamedTuple):
    """What one block needs, looked up once: finding a parameter through modules costs as much as a small kernel."""

    window: int | None
    ln_1: tuple[Tensor, Tensor]
    c_attn: tuple[Tensor, Tensor]
    attn_proj: tuple[Tensor, Tensor]
    ln_2: tuple[Tensor, Tensor]
    c_fc: tuple[Tensor, Tensor]
    mlp_proj: tuple[Tensor, Tensor]
    keys: Tensor
    values: Tensor


def _layer(block: Block, keys: Tensor, values: Tensor) -> _Layer:
    def pair(module: LayerNorm | torch.nn.Linear) -> tuple[Tensor, Tensor]:
        return module.weight.detach(), module.bias.detach()

    return _Layer(
        block.attn.window, pair(block.ln_1), pair(block.attn.c_attn), pair(block.attn.c_proj),
        pair(block.ln_2), pair(block.mlp.c_fc), pair(block.mlp.c_proj), keys, values,
    )


class Decoder:
    """A model bound to a KV cache, laid out for few Python calls a step. Dropout is never applied here.

    The weights are shared with the model, except for one transposed f32 copy of the output layer (V * D * 4 bytes):
    half-precision weights need it for f32 logits, and on the CPU it halves the time of the logits of a few rows, so it
    is made once enough steps have been taken. Make a new Decoder after the weights have changed. Runs without
    gradients; enter torch.no_grad or torch.inference_mode around it.
    """

    def __init__(self, model: GPT, cache: KVCache) -> None:
        """Bind `model` to `cache`; both stay in use, nothing is copied here."""
        self.config = model.config
        self.cache = cache
        self._wte = model.wte.weight.detach()
        self._wpe = model.wpe.weight.detach()
        self._ln_f = (model.ln_f.weight.detach(), model.ln_f.bias.detach())
        self._layers = [_layer(b, k, v) for b, k, v in zip(model.blocks, cache.keys, cache.values, strict=True)]
        self._transposed: Tensor | None = None
        self._calls = 0

    def prefill(self, tokens: Tensor, cu_seqlens: Tensor, rows: Tensor) -> Tensor:
        """Run packed prompts and store their keys and values in empty rows.

        tokens: int64 [N]; cu_seqlens: int32 [S + 1]; rows: int64 [S], claimed rows of the cache.
        Returns the hidden states after the last layer norm, [N, D].
        Raises ValueError when a row holds tokens already or a prompt is longer than the cache's rows.
        """
        cache, config = self.cache, self.config
        if bool(cache.lengths[rows].any()):
            raise ValueError("prefill: the rows of the cache must be empty, got rows in use; claim fresh rows.")
        lengths = cu_seqlens.diff()
        positions = packed_positions(tokens, cu_seqlens, cache.max_tokens)
        slots = cache.slots(torch.repeat_interleave(rows, lengths, output_size=tokens.shape[0]), positions)
        branch, stream = ops.embedding(tokens, positions, self._wte, self._wpe), None
        for layer in self._layers:
            normed, stream = self._norm(branch, stream, layer.ln_1)
            q, k, v = functional.linear(normed, *layer.c_attn).view(-1, 3, config.n_head, config.d_head).unbind(1)
            layer.keys.flatten(0, 1).index_copy_(0, slots, k)
            layer.values.flatten(0, 1).index_copy_(0, slots, v)
            mixed = ops.attention(q, k, v, causal=True, window=layer.window, cu_seqlens=cu_seqlens)
            branch, stream = self._finish(layer, mixed.reshape(normed.shape), stream)
        cache.lengths[rows] = lengths.to(cache.lengths.dtype)
        return self._norm(branch, stream, self._ln_f)[0]

    def step(self, tokens: Tensor, positions: Tensor, block_table: Tensor, lengths: Tensor) -> Tensor:
        """Append one token to each row and return its hidden state; `lengths` is left for the caller to advance.

        tokens: int64 [B]; positions: int64 [B], the place of each token in its sequence, equal to lengths.
        block_table: int32 [B, M] and lengths: int32 [B], the rows' lines of the cache.
        Returns [B, D].
        """
        # Straight to the native operators: with one token a row, the checks of the Python faces would cost as much as
        # the arithmetic. Shapes and dtypes are those that `prefill` has already taken through the faces.
        heads, width, eps = self.config.n_head, self.config.d_head, self.config.layer_norm_eps
        branch = _raw.embedding(tokens, positions, self._wte, self._wpe)
        stream = None
        for layer in self._layers:
            normed, summed, _, _ = _raw.layer_norm(branch, stream, *layer.ln_1, eps)
            # Before the first layer there is no stream to add, and the op gives no sum then.
            stream = branch if stream is None else summed
            q, k, v = functional.linear(normed, *layer.c_attn).view(-1, 1, 3, heads, width).unbind(2)
            mixed = _raw.attention_decode(
                q, k, v, layer.keys, layer.values, block_table, lengths, layer.window, width**-0.5
            )
            branch = functional.linear(mixed.view(normed.shape), *layer.attn_proj)
            normed, stream, _, _ = _raw.layer_norm(branch, stream, *layer.ln_2, eps)
            weight, bias = layer.c_fc
            wide = _raw.bias_gelu(functional.linear(normed, weight), bias, True)
            branch = functional.linear(wide, *layer.mlp_proj)
        return _raw.layer_norm(branch, stream, *self._ln_f, eps)[0]

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Return hidden [B, D] times the output layer, f32 [B, V]; written to `out` when given.

        f32 whatever the dtype of the weights, because log-probabilities are computed from it. `out` saves the page
        faults of a fresh [B, V] buffer at every step.
        """
        self._calls += 1
        half = hidden.dtype != torch.float32
        if half or (hidden.shape[0] > 1 and hidden.device.type == "cpu" and self._calls > TRANSPOSE_AFTER):
            if self._transposed is None:
                self._transposed = self._wte.float().t().contiguous()
            return torch.mm(hidden.float(), self._transposed, out=out)
        return torch.mm(hidden, self._wte.t(), out=out)

    def _norm(self, branch: Tensor, stream: Tensor | None, weights: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        weight, bias = weights
        if stream is None:
            return ops.layer_norm(branch, weight, bias, eps=self.config.layer_norm_eps), branch
        return ops.layer_norm(branch, weight, bias, residual=stream, eps=self.config.layer_norm_eps)

    def _finish(self, layer: _Layer, mixed: Tensor, stream: Tensor) -> tuple[Tensor, Tensor]:
        branch = functional.linear(mixed, *layer.attn_proj)
        normed, stream = self._norm(branch, stream, layer.ln_2)
        weight, bias = layer.c_fc
        wide = ops.bias_gelu(functional.linear(normed, weight), bias, approximate="tanh")
        return functional.linear(wide, *layer.mlp_proj), stream
