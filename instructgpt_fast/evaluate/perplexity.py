"""Perplexity of text under a language model, per token and in bits per byte, with a strided context.

A stream longer than the model's context is read in windows of `context` tokens, each beginning `stride` tokens after
the one before; a window judges only what no earlier window judged. Every token past the first window so sees at least
context - stride tokens before it. A smaller stride gives more context and costs context / stride times the work.
Documents are separated by EOS and not masked from one another, as in pretraining. EOS itself is never judged, so that
the bytes counted are those of the text.

Not covered: perplexities per token compare only models of one tokenizer; bits per byte compare any two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from instructgpt_fast.errors import ConfigError, DataError, TrainingError
from instructgpt_fast.evaluate.scoring import judging, pack_tokens
from instructgpt_fast.model import GPT, shift_packed
from instructgpt_fast.ops import linear_cross_entropy


@dataclass(frozen=True)
class Perplexity:
    """Total surprise of a text: `nats` over `tokens` judged tokens that stand for `bytes` bytes of UTF-8."""

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(nats per token); infinite where that does not fit a float."""
        return math.exp(self.loss) if self.loss < 700.0 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text, comparable across tokenizers."""
        return self.nats / math.log(2.0) / self.bytes


def windows(length: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, first judged) of each window over `length` tokens; the first token of the stream is not judged."""
    judged = 1
    begin = 0
    while judged < length:
        end = min(begin + context, length)
        yield begin, end, judged
        judged = end
        begin += stride


def perplexity(
    model: GPT,
    tokenizer: Any,
    tokens: Sequence[int] | np.ndarray,
    *,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
) -> Perplexity:
    """Measure the perplexity of a stream of tokens.

    tokens: ids [N] as a list, array or `TokenShards`, documents separated by EOS and best beginning with it; texts
        become that by `joined`.
    context: tokens of a window, the model's by default. stride: tokens between windows, half the context by default.
    batch_size: windows in one forward.
    Raises ConfigError for a context beyond the model's or a stride outside 1 .. context - 1, DataError when nothing
    can be judged, TrainingError when the loss is not finite.
    """
    longest = model.config.n_positions
    context = longest if context is None else context
    stride = max(1, context // 2) if stride is None else stride
    if not 2 <= context <= longest:
        raise ConfigError(f"perplexity: context must lie in 2..{longest} (the model's), got {context}; lower it.")
    if not 1 <= stride < context:
        raise ConfigError(f"perplexity: stride must lie in 1..{context - 1} (below the context), got {stride}.")
    lengths = np.array([len(tokenizer.bytes_of(i)) for i in range(tokenizer.vocab_size)])
    nats, count, size = 0.0, 0, 0
    with judging(model):
        spans = windows(len(tokens), context, stride)
        while batch := list(itertools.islice(spans, batch_size)):
            nats += _sum_nats(model, tokens, batch, tokenizer.eos_id)
            for _, end, first in batch:
                judged = np.asarray(tokens[first:end])
                judged = judged[judged != tokenizer.eos_id]
                count, size = count + len(judged), size + int(lengths[judged].sum())
    if count == 0:
        raise DataError("perplexity: the text must hold at least one token after the first, got none; check the data")
    if not math.isfinite(nats):
        raise TrainingError(
            f"perplexity: the loss must be finite, got {nats} over {count} tokens; the weights are broken, use another "
            "checkpoint."
        )
    return Perplexity(nats, count, size)


def joined(tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """Texts as one stream with EOS before each, so that every token of every text is judged; int64 [N]."""
    stream: list[int] = []
    for tokens in tokenizer.encode_batch(list(texts)):
        stream.append(tokenizer.eos_id)
        stream.extend(tokens)
    return np.array(stream, dtype=np.int64)


def _sum_nats(model: GPT, stream: Any, spans: Sequence[tuple[int, int, int]], eos_id: int) -> float:
    device = model.lm_weight.device
    pieces = [np.asarray(stream[begin:end]).tolist() for begin, end, _ in spans]
    tokens, cu_seqlens = pack_tokens(pieces, device)
    offsets = torch.cat([torch.arange(begin, end) >= judged for begin, end, judged in spans]).to(device)
    mask = offsets & (tokens != eos_id)
    hidden = model(tokens, cu_seqlens=cu_seqlens)
    before, targets, counted = shift_packed(hidden, tokens, mask, cu_seqlens)
    return float(linear_cross_entropy(before, model.lm_weight, targets, counted))
