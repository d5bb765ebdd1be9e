"""How large a quickstart is: the model, the data and the steps of each stage, from the minutes it may take.

The rates below were measured on two cores of a 2024 server CPU in float32; another machine takes longer or shorter in
proportion. Sizes depend on the minutes alone, so a run is the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from instructgpt_fast.errors import ConfigError

SMALL_FROM, LARGE_FROM = 1.0, 25.0  # minutes
"""Below LARGE_FROM the small model is trained, from it on the large one; below SMALL_FROM there is no use in trying."""
SMALL_MINUTES = 6.0
"""What SMALL was sized for."""


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
    corpora=("austen",), vocab=4096, layers=4, width=192, heads=3, pretrain_steps=900, story_demonstrations=3000,
    fact_demonstrations=2000, comparison_prompts=900, episodes=3072,
)
LARGE = Plan(
    corpora=("austen", "moby_dick", "bible", "state_of_the_union"), vocab=8192, layers=6, width=320, heads=5,
    pretrain_steps=4200, story_demonstrations=12000, fact_demonstrations=4000, comparison_prompts=1600, episodes=4096,
    validation_fraction=0.02, answer_tokens=48,
)
LARGE_MINUTES = 60.0
"""What LARGE was sized for."""


def plan_for(minutes: float) -> Plan:
    """The sizes of a run of about so many minutes on two cores. Raises ConfigError below SMALL_FROM."""
    if minutes < SMALL_FROM:
        raise ConfigError(f"quickstart: minutes must be at least {SMALL_FROM:g}, got {minutes:g}; allow it some time")
    if minutes < LARGE_FROM:
        return scaled(SMALL, minutes / SMALL_MINUTES)
    return scaled(LARGE, minutes / LARGE_MINUTES)


def scaled(plan: Plan, factor: float) -> Plan:
    """The plan with its steps, prompts and episodes times `factor`; models and batches stay."""
    return replace(
        plan, pretrain_steps=max(10, round(plan.pretrain_steps * factor)),
        story_demonstrations=max(100, round(plan.story_demonstrations * min(factor, 1.0))),
        fact_demonstrations=max(50, round(plan.fact_demonstrations * min(factor, 1.0))),
        comparison_prompts=max(40, round(plan.comparison_prompts * factor)),
        episodes=plan.ppo_batch * max(2, round(plan.episodes * min(factor, 1.0) / plan.ppo_batch)),
    )
