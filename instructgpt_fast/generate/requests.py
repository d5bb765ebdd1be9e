"""What the engine is asked for, and what it tells as tokens are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.generate.sampling import FinishReason, SamplingConfig
from instructgpt_fast.model import GPTConfig

__all__ = ["Drawn", "FinishReason", "Request", "check_prompt", "check_seeds"]


@dataclass(frozen=True)
class Request:
    """A prompt to complete `count` times.

    prompt: token ids, at least one, fewer than the model's context. sampling: how tokens are drawn, and when to end.
    count: completions; they share the prompt's keys and values. seeds: one in [0, 2^63) a completion; None makes them
    from sampling.seed. top_logprobs: alternatives told beside each token, the likeliest first; 0 for none.
    """

    prompt: Sequence[int]
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    count: int = 1
    seeds: Sequence[int] | None = None
    top_logprobs: int = 0


@dataclass(frozen=True)
class Drawn:
    """One token of one completion.

    ticket: of the request, as `Engine.submit` returned it. index: which of the request's completions, from 0.
    token: its id. logprob: nats, at the sampling temperature and before truncation. alternatives: (id, logprob) of the
    request's top_logprobs likeliest tokens. text: what may be shown now, "" while a character or a possible stop string
    is incomplete, and without a tokenizer; joined, the pieces are the completion's text, without its stop string.
    finish_reason: set with the last token: "eos" (end-of-text or one of stop_ids), "stop" (a stop string), "length".
    """

    ticket: int
    index: int
    token: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None


def check_prompt(who: str, prompt: Sequence[int], config: GPTConfig, name: str) -> None:
    """Raise DataError of `who` unless a model of this shape can complete the prompt, which the message calls `name`."""
    context, vocabulary = config.n_positions, config.vocab_size
    if not isinstance(prompt, Sequence) or isinstance(prompt, str | bytes):
        raise DataError(
            f"{who}: a prompt must be a list of token ids, got {type(prompt).__name__} in {name}; encode text with the "
            "tokenizer, and take .tolist() of a tensor."
        )
    if not prompt:
        raise DataError(f"{who}: a prompt must have at least one token, got none in {name}; leave it out.")
    if len(prompt) >= context:
        raise DataError(
            f"{who}: a prompt must be shorter than the context of {context} tokens, got {len(prompt)} in {name}; "
            "shorten it or use a model with more positions."
        )
    if min(prompt) < 0 or max(prompt) >= vocabulary:
        raise DataError(
            f"{who}: token ids must be in 0..{vocabulary - 1}, got {min(prompt)}..{max(prompt)} in {name}; encode it "
            "with the model's own tokenizer."
        )


def check_seeds(who: str, seeds: Sequence[int], count: int, each: str) -> None:
    """Raise ConfigError of `who` unless there are `count` seeds in [0, 2^63), one for `each` of what they are for."""
    if len(seeds) != count:
        raise ConfigError(f"{who}: there must be one seed a {each}, got {len(seeds)} for {count} {each}s.")
    for seed in seeds:
        if not isinstance(seed, Integral) or not 0 <= seed < 2**63:
            raise ConfigError(f"{who}: seeds must be integers in [0, 2^63), got {seed!r}; take them modulo 2^63.")
