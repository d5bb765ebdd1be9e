"""Prefill and decode: the transformer's forward pass over a KV cache, without gradients.

Not covered: choosing pages for a sequence, which is the caller's (generate/pages.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from instructgpt_fast import ops
from instructgpt_fast.model.kv_cache import KVCache

_raw = torch.ops.instructgpt_fast

if TYPE_CHECKING:
    from instructgpt_fast.model.transformer import GPT, Block, LayerNorm


class Chunk(NamedTuple):
    """The next tokens of one sequence: `tokens` follow `past` tokens that the cache holds already.

    pages: the sequence's pages in order, enough for past + len(tokens) tokens; those written belong to it alone.
    """

    tokens: Sequence[int]
    past: int
    pages: Sequence[int]


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


_Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# Takes a layer and its normalised input [N, D]; stores its keys and values and returns the mix of values.
_Attend = Callable[[_Layer, Tensor], Tensor]


def prefills_exactly(device: torch.device) -> bool:
    """Whether a token gets the same bits from prefill, in chunks of any length, as it would from single steps.

    So on the CPU. On a GPU long chunks are for cuBLAS and the kernels of attention: several times faster there, at the
    price of rounding by the number of tokens that are run together.
    """
    return device.type == "cpu"


def _pair(module: LayerNorm | torch.nn.Linear) -> tuple[Tensor, Tensor]:
    return module.weight.detach(), module.bias.detach()


def _layer(block: Block, keys: Tensor, values: Tensor) -> _Layer:
    return _Layer(
        block.attn.window, _pair(block.ln_1), _pair(block.attn.c_attn), _pair(block.attn.c_proj),
        _pair(block.ln_2), _pair(block.mlp.c_fc), _pair(block.mlp.c_proj), keys, values,
    )


class Decoder:
    """A model bound to a KV cache, laid out for few Python calls a step. Dropout is never applied here.

    The weights are the model's own: nothing is copied, and a step taken after they have been changed in place sees the
    change. Runs without gradients; enter torch.no_grad or torch.inference_mode around it.
    """

    def __init__(self, model: GPT, cache: KVCache) -> None:
        """Bind `model` to `cache`; both stay in use."""
        self.config = model.config
        self.cache = cache
        self._wte = model.wte.weight.detach()
        self._wpe = model.wpe.weight.detach()
        self._ln_f = _pair(model.ln_f)
        self._buffer = self._wte.new_empty(0, 3 * self.config.d_model)
        self._parts: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self._layers = [_layer(b, k, v) for b, k, v in zip(model.blocks, cache.keys, cache.values, strict=True)]

    def is_bound_to(self, model: GPT) -> bool:
        """Whether the model's weights lie where steps read them: always, unless it was given other tensors."""
        bound = [self._wte, self._wpe, *self._ln_f]
        for layer in self._layers:
            bound += [*layer.ln_1, *layer.c_attn, *layer.attn_proj, *layer.ln_2, *layer.c_fc, *layer.mlp_proj]
        live = {parameter.data_ptr() for parameter in model.parameters()}
        return live == {tensor.data_ptr() for tensor in bound}

    def prefill(self, chunks: Sequence[Chunk]) -> Tensor:
        """Append each chunk's tokens to its sequence and return their hidden states [N, D], chunk after chunk.

        Raises ValueError when a sequence outgrows its pages or the context.
        """
        branch, stream = self._append(chunks, whole=True)
        hidden: Tensor = _raw.layer_norm(branch, stream, *self._ln_f, self.config.layer_norm_eps)[0]
        return hidden

    def store(self, chunks: Sequence[Chunk]) -> None:
        """As `prefill`, for keys and values alone: nothing is computed that only the hidden states need."""
        self._append(chunks, whole=False)

    def _append(self, chunks: Sequence[Chunk], *, whole: bool) -> tuple[Tensor, Tensor | None]:
        self._check(chunks)
        device = self._wte.device
        flat = [token for chunk in chunks for token in chunk.tokens]
        places = [place for c in chunks for place in range(c.past, c.past + len(c.tokens))]
        tokens, positions = torch.tensor([flat, places], dtype=torch.int64).to(device).unbind(0)
        attend = self._attend_as_decoding(chunks) if prefills_exactly(device) else self._attend(chunks, device)
        linear = _raw.invariant_linear if prefills_exactly(device) else functional.linear
        return self._run(tokens, positions, attend, linear, whole=whole)

    def step(self, tokens: Tensor, positions: Tensor, block_table: Tensor, lengths: Tensor) -> Tensor:
        """Append one token to each row and return its hidden state; `lengths` is left for the caller to advance.

        tokens: int64 [B]; positions: int64 [B], the place of each token in its sequence, equal to lengths.
        block_table: int32 [B, M], the rows' pages in order, -1 where there is none; lengths: int32 [B], tokens cached.
        Returns [B, D]. On the CPU a row without a page for its token raises RuntimeError; on a GPU, which has no way
        to raise, such a row gives NaN and harms no other.
        """
        heads, width = self.config.n_head, self.config.d_head
        scale = width**-0.5

        kept = self._projected(len(tokens)) if tokens.device.type == "cpu" else None

        def attend(layer: _Layer, normed: Tensor) -> Tensor:
            if kept is None:
                q, k, v = _raw.invariant_linear(normed, *layer.c_attn).view(-1, 1, 3, heads, width).unbind(2)
            else:
                fused, q, k, v = kept
                _raw.invariant_linear_out(normed, *layer.c_attn, fused)
            mixed: Tensor = _raw.attention_decode(
                q, k, v, layer.keys, layer.values, block_table, lengths, layer.window, scale
            )
            return mixed

        branch, stream = self._run(tokens, positions, attend, _raw.invariant_linear, whole=True)
        hidden: Tensor = _raw.layer_norm(branch, stream, *self._ln_f, self.config.layer_norm_eps)[0]
        return hidden

    def _projected(self, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A buffer [rows, 3 * D] for a step's fused projection, and its parts as attention_decode takes them.

        Kept from step to step: making three views costs as much as a small kernel. One memory serves any number.
        """
        if rows not in self._parts:
            # Usable inside and outside of inference mode, whichever the first step is taken in.
            with torch.inference_mode(False), torch.no_grad():
                if rows > len(self._buffer):
                    self._buffer = self._wte.new_empty(rows, 3 * self.config.d_model)
                    self._parts.clear()
                fused = self._buffer[:rows]
                q, k, v = fused.view(rows, 1, 3, self.config.n_head, self.config.d_head).unbind(2)
            self._parts[rows] = (fused, q, k, v)
        return self._parts[rows]

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Return hidden [B, D] times the output layer, f32 [B, V]; written to `out` when given.

        f32 whatever the dtype of the weights, because log-probabilities are computed from it. `out` saves the page
        faults of a fresh [B, V] buffer at every step.
        """
        if out is None:
            out = torch.empty(hidden.shape[0], self._wte.shape[0], device=hidden.device)
        _raw.invariant_linear_out(hidden, self._wte, None, out)
        return out

    def _run(
        self, tokens: Tensor, positions: Tensor, attend: _Attend, linear: _Linear, *, whole: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Run the layers; returns the (branch, stream) that leave the last one, which stops half way unless `whole`."""
        # Straight to the native operators: with one token a row, the checks of the Python faces would cost as much as
        # the arithmetic.
        eps, last = self.config.layer_norm_eps, None if whole else self._layers[-1]
        branch = _raw.embedding(tokens, positions, self._wte, self._wpe)
        stream = None
        for layer in self._layers:
            normed, summed, _, _ = _raw.layer_norm(branch, stream, *layer.ln_1, eps)
            # Before the first layer there is no stream to add, and the op gives no sum then.
            stream = branch if stream is None else summed
            mixed = attend(layer, normed)
            if layer is last:
                break
            branch = linear(mixed.view(normed.shape), *layer.attn_proj)
            normed, stream, _, _ = _raw.layer_norm(branch, stream, *layer.ln_2, eps)
            weight, bias = layer.c_fc
            branch = linear(_raw.bias_gelu(linear(normed, weight, None), bias, True), *layer.mlp_proj)
        return branch, stream

    def _attend_as_decoding(self, chunks: Sequence[Chunk]) -> _Attend:
        """As a step attends, so that a token gets the same bits wherever chunks begin and end."""
        heads, width = self.config.n_head, self.config.d_head
        scale = width**-0.5
        calls = []
        begin = 0
        # Neighbours of one length go together: most calls are for prompts of a few tokens.
        for length, group in itertools.groupby(chunks, key=lambda chunk: len(chunk.tokens)):
            rows = list(group)
            end = begin + length * len(rows)
            widest = max(len(row.pages) for row in rows)
            table = torch.tensor([[*row.pages, *[-1] * (widest - len(row.pages))] for row in rows], dtype=torch.int32)
            pasts = torch.tensor([row.past for row in rows], dtype=torch.int32)
            calls.append((begin, end, (len(rows), length), table, pasts))
            begin = end

        def attend(layer: _Layer, normed: Tensor) -> Tensor:
            fused = _raw.invariant_linear(normed, *layer.c_attn)
            parts = []
            for begin, end, shape, table, pasts in calls:
                q, k, v = fused[begin:end].view(*shape, 3, heads, width).unbind(2)
                mixed = _raw.attention_decode(
                    q, k, v, layer.keys, layer.values, table, pasts, layer.window, scale
                )
                parts.append(mixed.flatten(0, 1))
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        return attend

    def _attend(self, chunks: Sequence[Chunk], device: torch.device) -> _Attend:
        """One packed call for all chunks when none has a past; otherwise a dense one a chunk over its gathered keys."""
        heads, width = self.config.n_head, self.config.d_head
        slots = torch.cat([self.cache.slots(c.pages, c.past, c.past + len(c.tokens)) for c in chunks]).to(device)
        bounds = list(itertools.accumulate((len(c.tokens) for c in chunks), initial=0))
        packed = not any(c.past for c in chunks)
        cu_seqlens = torch.tensor(bounds, dtype=torch.int32).to(device)
        seen = [] if packed else [self.cache.slots(c.pages, 0, c.past + len(c.tokens)).to(device) for c in chunks]

        def attend(layer: _Layer, normed: Tensor) -> Tensor:
            fused = functional.linear(normed, *layer.c_attn)
            q, k, v = fused.view(-1, 3, heads, width).unbind(1)
            keys, values = layer.keys.flatten(0, 1), layer.values.flatten(0, 1)
            keys.index_copy_(0, slots, k)
            values.index_copy_(0, slots, v)
            if packed:
                return ops.attention(q, k, v, causal=True, window=layer.window, cu_seqlens=cu_seqlens)
            return torch.cat([
                ops.attention(q[None, begin:end], keys[past][None], values[past][None], window=layer.window)[0]
                for begin, end, past in zip(bounds, bounds[1:], seen, strict=False)
            ])

        return attend

    def _check(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            length = chunk.past + len(chunk.tokens)
            room = len(chunk.pages) * self.cache.page_size
            if length > min(room, self.config.n_positions):
                raise ValueError(
                    f"prefill: a sequence must fit its pages ({room} tokens) and the context "
                    f"({self.config.n_positions}), got {length} tokens; give it more pages or shorten it."
                )
