"""What a quickstart measured: the table, and the same prompts answered by each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from instructgpt_fast.evaluate.perplexity import joined, perplexity
from instructgpt_fast.evaluate.reward_accuracy import Accuracy, RankedAnswers, reward_accuracy
from instructgpt_fast.generate import SamplingConfig, generate
from instructgpt_fast.quickstart.labelers import Labelers
from instructgpt_fast.rlhf.rollout import collect, episode_seeds
from instructgpt_fast.rlhf.scoring import rollout_logprobs, rollout_scores

TOKENS_AT_ONCE = 8192


@dataclass(frozen=True)
class PolicyScores:
    """One policy on prompts of chapters that no training file has seen; means over the prompts with standard errors.

    reward: reward-model score. opinion: the ten labelers' mean opinion, which the policy never sees. kl: nats per
    response to the SFT model. length: tokens, EOS included. finished: share of answers that end with EOS.
    """

    reward: float
    reward_error: float
    opinion: float
    opinion_error: float
    kl: float
    length: float
    finished: float


def measure_perplexity(loaded: Any, texts: Sequence[str]) -> float:
    """Perplexity per token of whole documents."""
    return perplexity(loaded.model, loaded.tokenizer, joined(loaded.tokenizer, texts)).perplexity


def measure_accuracy(loaded: Any, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Reward-model accuracy on ranked answers, over all pairs and by K, with half widths of the 95 % intervals."""
    tokenizer = loaded.tokenizer
    data = [
        RankedAnswers(
            [tokenizer.encode_example(row["prompt"], text, loaded.prompt_format).tokens for text in row["completions"]],
            row["ranks"],
        )
        for row in rows
    ]
    found = reward_accuracy(loaded.model, data)
    return {"overall": _plain(found.overall), "by_k": {str(k): _plain(v) for k, v in found.by_k.items()}}


def _plain(accuracy: Accuracy) -> dict[str, Any]:
    # One prompt alone has no spread, and JSON has no word for what is not a number.
    return {name: None if value != value else value for name, value in asdict(accuracy).items()}


def measure_policy(
    policy: Any, reference: Any, reward: Any, labelers: Labelers, prompts: Sequence[str], answer_tokens: int, seed: int
) -> PolicyScores:
    """Answer every prompt once at temperature 1 and score the answers."""
    tokenizer = policy.tokenizer
    rollout = collect(
        policy.model, [tokenizer.encode_prompt(p, policy.prompt_format) for p in prompts],
        SamplingConfig(max_new_tokens=answer_tokens), eos_id=tokenizer.eos_id,
        seeds=episode_seeds(seed, 0, len(prompts)), batch_size=256,
    )
    scores = rollout_scores(reward.model, rollout, max_tokens=TOKENS_AT_ONCE)
    own, other = (
        rollout_logprobs(side.model, rollout, temperature=1.0, max_tokens=TOKENS_AT_ONCE)
        for side in (policy, reference)
    )
    opinions = torch.tensor([labelers.mean_opinion(tokenizer.decode(r)) for r in rollout.responses])
    error = len(prompts) ** -0.5
    return PolicyScores(
        reward=float(scores.mean()), reward_error=float(scores.std()) * error,
        opinion=float(opinions.mean()), opinion_error=float(opinions.std()) * error,
        kl=float(((own - other) * rollout.loss_mask).sum(1).mean()),
        length=float(rollout.loss_mask.sum(1).float().mean()), finished=float(rollout.finished.float().mean()),
    )


def answers_of(loaded: Any, prompts: Sequence[str], answer_tokens: int, seed: int) -> list[str]:
    """One answer to each prompt at temperature 0.7, a little more careful than in training."""
    found = generate(loaded, list(prompts), max_new_tokens=answer_tokens, temperature=0.7, seed=seed)
    return [found] if isinstance(found, str) else list(found)
