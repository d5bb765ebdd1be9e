"""What a quickstart measured: the table, and the same prompts answered by each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from instructgpt_fast.evaluate.perplexity import joined, perplexity
from instructgpt_fast.evaluate.reward_accuracy import Accuracy, RankedAnswers, reward_accuracy
from instructgpt_fast.generate import generate
from instructgpt_fast.quickstart.labelers import Labelers
from instructgpt_fast.rlhf import measure as rlhf_measure
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.rlhf.scoring import rollout_scores

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
    opinions: list[float] = []

    def judge(rollout: Rollout) -> torch.Tensor:
        opinions.extend(labelers.mean_opinion(tokenizer.decode(response)) for response in rollout.responses)
        return rollout_scores(reward.model, rollout, max_tokens=TOKENS_AT_ONCE)

    found = rlhf_measure.measure_policy(
        policy.model, reference.model, [tokenizer.encode_prompt(p, policy.prompt_format) for p in prompts], judge,
        eos_id=tokenizer.eos_id, max_new_tokens=answer_tokens, seed=seed, batch_size=256, max_tokens=TOKENS_AT_ONCE,
    )
    opinion = torch.tensor(opinions, dtype=torch.float64)
    return PolicyScores(
        reward=found.score, reward_error=found.score_error, opinion=float(opinion.mean()),
        opinion_error=float(opinion.std(unbiased=False)) / len(opinions) ** 0.5, kl=found.kl,
        length=found.response_length, finished=found.eos_rate,
    )


def answers_of(loaded: Any, prompts: Sequence[str], answer_tokens: int, seed: int) -> list[str]:
    """One answer to each prompt at temperature 0.7, a little more careful than in training."""
    answers: list[str] = generate(loaded, prompts, max_new_tokens=answer_tokens, temperature=0.7, seed=seed)
    return answers
