"""How tokens are drawn, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass

from instructgpt_fast.errors import ConfigError

# 2^64 divided by the golden ratio: multiplying by it spreads consecutive run seeds over all 64 bits.
_SPREAD = 0x9E3779B97F4A7C15


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
    Raises ConfigError when a number is out of range.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "max_new_tokens must be at least 1": self.max_new_tokens >= 1,
            "temperature must not be negative": self.temperature >= 0.0,
            "top_k must not be negative": self.top_k >= 0,
            "top_p must be in (0, 1]": 0.0 < self.top_p <= 1.0,
            "min_p must be in [0, 1]": 0.0 <= self.min_p <= 1.0,
            "repetition_penalty must be positive": self.repetition_penalty > 0.0,
        }
        for rule, holds in rules.items():
            if not holds:
                name = rule.split()[0]
                raise ConfigError(f"sampling: {rule}, got {getattr(self, name)}; correct the option.")


@dataclass(frozen=True)
class Completion:
    """One answer. tokens: ids, the end-of-text token included when it was drawn. logprobs: nats, one a token, at the
    sampling temperature and before truncation. finished: whether the end-of-text token was drawn."""

    tokens: list[int]
    logprobs: list[float]
    finished: bool


def default_seeds(seed: int, count: int) -> list[int]:
    """One seed in [0, 2^63) for each of `count` completions, so that equal prompts get different answers."""
    return [(seed * _SPREAD + i) % 2**63 for i in range(count)]
