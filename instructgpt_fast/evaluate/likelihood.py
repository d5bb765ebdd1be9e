"""How likely a language model finds given continuations and whole documents: sums of log-probabilities in nats.

Sequences are packed without padding, the longest first, so that a batch that does not fit the memory is met at once;
results come back in the order of the requests. A continuation is predicted from at most n_positions tokens before its
last one: what is longer loses tokens of its context from the left, never tokens of the continuation. Its last token is
predicted but not read, so that context and continuation together may have n_positions + 1 tokens.

Not covered: log-probabilities of sequences of different length are no fair comparison by themselves; see
evaluate/multiple_choice.py for the usual ways to compare them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from instructgpt_fast.errors import ConfigError, DataError, TrainingError
from instructgpt_fast.evaluate.scoring import judging, pack_tokens
from instructgpt_fast.model import GPT, rows_before_ends
from instructgpt_fast.ops import token_logprobs

LOGITS_AT_ONCE = 1 << 24  # 64 MiB of float32: the argmax of more rows is taken in parts

Tokens = Sequence[int]


@dataclass(frozen=True)
class Likelihood:
    """What a model makes of one continuation.

    logprob: natural logarithm of its probability given its context, the sum over its tokens.
    tokens: of the continuation. greedy: whether the likeliest token was the given one at every place.
    """

    logprob: float
    tokens: int
    greedy: bool

    @property
    def per_token(self) -> float:
        """Average log-probability of a token, nats."""
        return self.logprob / self.tokens


class _Input(NamedTuple):
    """What the model reads: a sequence without its last token, and how many of its ends are judged."""

    tokens: tuple[int, ...]
    judged: int


def loglikelihoods(
    model: GPT, tokenizer: Any, requests: Sequence[tuple[Tokens, Tokens]], *, batch_size: int = 8
) -> list[Likelihood]:
    """Score continuations given their contexts; one result a request, in their order.

    requests: (context, continuation) as token ids. An empty context stands for EOS, behind which every document began
        in training. A continuation has 1 .. n_positions tokens.
    batch_size: sequences of full context length whose tokens are run in one forward; shorter ones are more.
    Requests that differ in their last token alone, such as the letters of a multiple choice, are run once.
    Raises ConfigError for a batch_size below 1, DataError for an empty or too long continuation or an unknown id,
    TrainingError when a log-probability is not finite.
    """
    return _score(model, tokenizer, requests, batch_size, want_greedy=True)


def rolling_loglikelihoods(
    model: GPT, tokenizer: Any, documents: Sequence[Tokens], *, overlap: int = 1, batch_size: int = 8
) -> list[Likelihood]:
    """Score whole documents, each by itself, every token once; in their order.

    The first token is predicted from EOS. A document longer than the context is read in the windows that lm-eval
    defines (Gao et al., lm-evaluation-harness, `get_rolling_token_windows`): the first judges n_positions tokens, each
    later one at most n_positions - overlap + 1, and the last reaches back as far as the context does.
    overlap: tokens of context that each window past the first has at least, 1 .. n_positions; lm-eval takes 1.
    An empty document has log-probability 0 over 0 tokens. `greedy` is not looked at here and is False.
    Raises as `loglikelihoods`, and ConfigError for an overlap out of range.
    """
    context = model.config.n_positions
    if not 1 <= overlap <= context:
        raise ConfigError(f"likelihood: overlap must lie in 1..{context} (the model's context), got {overlap}.")
    parts = [list(rolling_windows(document, tokenizer.eos_id, context, overlap)) for document in documents]
    scores = iter(_score(model, tokenizer, [pair for part in parts for pair in part], batch_size, want_greedy=False))
    found = []
    for document, part in zip(documents, parts, strict=True):
        found.append(Likelihood(math.fsum(next(scores).logprob for _ in part), len(document), False))
    return found


def rolling_windows(tokens: Tokens, prefix: int, context: int, overlap: int) -> Iterator[tuple[Tokens, Tokens]]:
    """(context, continuation) of each window over a document; the continuations joined are the document."""
    if tokens:
        yield [prefix], tokens[:context]
    done = context
    while done < len(tokens):
        end = min(done + context - overlap + 1, len(tokens))
        yield tokens[end - context - 1:done], tokens[done:end]
        done = end


def _score(
    model: GPT, tokenizer: Any, requests: Sequence[tuple[Tokens, Tokens]], batch_size: int, *, want_greedy: bool
) -> list[Likelihood]:
    if batch_size < 1:
        raise ConfigError(f"likelihood: batch_size must be at least 1, got {batch_size}; correct the option.")
    places: dict[_Input, list[int]] = {}
    for place, (context, continuation) in enumerate(requests):
        places.setdefault(_input(model, tokenizer.eos_id, place, context, continuation), []).append(place)
    found: dict[int, Likelihood] = {}
    with judging(model):
        for batch in _batches(places, batch_size * model.config.n_positions):
            wanted = [place for item in batch for place in places[item]]
            targets = [requests[place][1] for place in wanted]
            logprobs, matches = _judge(model, batch, [len(places[item]) for item in batch], targets, want_greedy)
            begin = 0
            for place, target in zip(wanted, targets, strict=True):
                end = begin + len(target)
                total = math.fsum(logprobs[begin:end])
                if not math.isfinite(total):
                    raise TrainingError(
                        f"likelihood: a log-probability must be finite, got {total} for request {place}; the weights "
                        "are broken, use another checkpoint."
                    )
                found[place] = Likelihood(total, len(target), want_greedy and all(matches[begin:end]))
                begin = end
    return [found[place] for place in range(len(requests))]


def _input(model: GPT, eos_id: int, place: int, context: Tokens, continuation: Tokens) -> _Input:
    longest, vocabulary = model.config.n_positions, model.config.vocab_size
    if not 1 <= len(continuation) <= longest:
        raise DataError(
            f"likelihood: a continuation must have 1 to {longest} tokens (the model's context), got "
            f"{len(continuation)} in request {place}; shorten it, or score it as a document in windows."
        )
    whole = [*(context or (eos_id,)), *continuation][-(longest + 1):]
    if min(whole) < 0 or max(whole) >= vocabulary:
        raise DataError(
            f"likelihood: token ids must be in 0..{vocabulary - 1}, got {min(whole)}..{max(whole)} in request {place}; "
            "encode it with the model's own tokenizer."
        )
    return _Input(tuple(whole[:-1]), len(continuation))


def _batches(items: Iterable[_Input], room: int) -> Iterator[list[_Input]]:
    """Inputs of at most `room` tokens together, the longest first."""
    batch: list[_Input] = []
    used = 0
    for item in sorted(items, key=lambda each: len(each.tokens), reverse=True):
        if batch and used + len(item.tokens) > room:
            yield batch
            batch, used = [], 0
        batch.append(item)
        used += len(item.tokens)
    if batch:
        yield batch


def _judge(
    model: GPT, batch: Sequence[_Input], repeats: Sequence[int], targets: Sequence[Tokens], want_greedy: bool
) -> tuple[list[float], list[bool]]:
    """Log-probability of every target token, and whether it is the likeliest; requests of one input share its rows."""
    device = model.lm_weight.device
    tokens, cu_seqlens = pack_tokens([item.tokens for item in batch], device)
    hidden = model(tokens, cu_seqlens=cu_seqlens)
    rows = rows_before_ends(cu_seqlens.tolist(), [item.judged for item in batch]).split([item.judged for item in batch])
    shared = torch.cat([part for part, times in zip(rows, repeats, strict=True) for _ in range(times)])
    wanted = torch.tensor([token for target in targets for token in target], dtype=torch.int64, device=device)
    before = hidden.index_select(0, shared.to(device))
    logprobs, _ = token_logprobs(before, model.lm_weight, wanted)
    matches = (_likeliest(model, before) == wanted).tolist() if want_greedy else []
    return logprobs.double().tolist(), matches


def _likeliest(model: GPT, before: Tensor) -> Tensor:
    """The likeliest token of each row, the first of equals; int64 [N]."""
    step = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    return torch.cat([model.logits(part).argmax(-1) for part in before.split(step)])
