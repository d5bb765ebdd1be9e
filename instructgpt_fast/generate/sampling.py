"""How tokens are drawn and when a completion ends, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from instructgpt_fast.config import convert, field_types
from instructgpt_fast.errors import ConfigError

FinishReason = Literal["eos", "stop", "length"]

# Each piece of text is held against every stop string: a bound keeps that from costing more than the model.
STOP_STRINGS_AT_MOST = 16
# 2^64 divided by the golden ratio: multiplying by it spreads consecutive run seeds over all 64 bits.
_SPREAD = 0x9E3779B97F4A7C15
# Logits are multiplied by the penalty and divided by the temperature in float32: both at their bounds leave room.
_MODEST = "[1e-10, 1e10]"


@dataclass(frozen=True)
class SamplingConfig:
    """Options of sampling; the defaults draw from the model's own distribution.

    max_new_tokens: most tokens of a completion, its end-of-text token included.
    temperature: the logits are divided by it; 0 takes the most likely token.
    top_k: keep the k most likely tokens; 0 keeps all.
    top_p: keep the fewest tokens whose probabilities sum to top_p; 1 keeps all.
    min_p: keep tokens with at least min_p times the largest probability; 0 keeps all.
    repetition_penalty: above 1 makes tokens of the prompt and the completion so far less likely.
    seed: where the per-completion seeds come from.
    stop: texts that end a completion and are not part of it; one text or a list, kept as a tuple, 16 at most.
    stop_ids: tokens that end a completion as the end-of-text token does; one id or a list, kept as a tuple.
    num_beams: completions searched side by side for the likeliest; 1 is no search. More needs temperature=0, and
        top_k, top_p, min_p, repetition_penalty and seed as they are by default.
    length_penalty: beams are compared by the sum of their log-probabilities over their length to this power.
    Raises ConfigError when an option is of another type or out of range, or means nothing beside num_beams.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    num_beams: int = 1
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, annotation in field_types(SamplingConfig).items():
            value = getattr(self, name)
            if name in ("stop", "stop_ids") and isinstance(value, str | int):
                value = (value,)
            object.__setattr__(self, name, convert("sampling", name, value, annotation))
        rules = {
            "max_new_tokens must be at least 1": self.max_new_tokens >= 1,
            "temperature must not be negative": self.temperature >= 0.0,
            f"temperature must be 0 or in {_MODEST}": self.temperature == 0.0 or _is_modest(self.temperature),
            "top_k must not be negative": self.top_k >= 0,
            "top_k must be less than 2^31": self.top_k < 2**31,
            "top_p must be in (0, 1]": 0.0 < self.top_p <= 1.0,
            "min_p must be in [0, 1]": 0.0 <= self.min_p <= 1.0,
            "repetition_penalty must be positive": self.repetition_penalty > 0.0,
            f"repetition_penalty must be in {_MODEST}": _is_modest(self.repetition_penalty),
            f"stop must be at most {STOP_STRINGS_AT_MOST} texts, none empty":
                len(self.stop) <= STOP_STRINGS_AT_MOST and all(self.stop),
            "stop_ids must not be negative": all(token >= 0 for token in self.stop_ids),
            "num_beams must be at least 1": self.num_beams >= 1,
            # A million tokens to a power beyond that is no float any more.
            "length_penalty must be in [-50, 50]": -50.0 <= self.length_penalty <= 50.0,
        }
        for rule, holds in rules.items():
            if not holds:
                name = rule.split()[0]
                raise ConfigError(f"sampling: {rule}, got {getattr(self, name)!r}; correct the option.")
        if self.num_beams > 1:
            self.check_search()

    def check_search(self) -> None:
        """Raise ConfigError for an option that shapes a draw: a beam search draws nothing and would ignore it."""
        wanted = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0}
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise ConfigError(
                    f"sampling: beam search (num_beams={self.num_beams}) draws nothing, so {name} must be {value}, got "
                    f"{getattr(self, name)}; set {name}={value}, or sample instead."
                )


def _is_modest(number: float) -> bool:
    return 1e-10 <= number <= 1e10


@dataclass(frozen=True)
class Completion:
    """One answer.

    tokens: ids, the one that ended it included. logprobs: nats, one a token, at the sampling temperature and before
    truncation. finish_reason: "eos" (the end-of-text token or one of stop_ids), "stop" (a stop string) or "length"
    (max_new_tokens, or the context is full). text: without special tokens and stop string; "" without a tokenizer.
    alternatives: for each token the likeliest ones as (id, logprob); empty when none were asked for.
    """

    tokens: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    text: str = ""
    alternatives: Sequence[tuple[tuple[int, float], ...]] = ()

    @property
    def finished(self) -> bool:
        """Whether the model ended the completion itself, by a token that ends texts."""
        return self.finish_reason == "eos"


def default_seeds(seed: int, count: int, first: int = 0) -> list[int]:
    """One seed in [0, 2^63) for each completion, so that equal prompts get different answers.

    A function of `seed` and of the completion's number alone, which counts from `first`: completions asked for in
    several calls draw the same as in one.
    """
    return [(seed * _SPREAD + i) % 2**63 for i in range(first, first + count)]
