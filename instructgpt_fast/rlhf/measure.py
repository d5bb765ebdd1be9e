"""Measure a policy on fixed prompts: score, KL to a reference, length and EOS rate, before and after PPO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instructgpt_fast.generate import SamplingConfig
from instructgpt_fast.model import GPT
from instructgpt_fast.rlhf.kl import response_kl
from instructgpt_fast.rlhf.rollout import collect, episode_seeds
from instructgpt_fast.rlhf.scorers import Scorer
from instructgpt_fast.rlhf.scoring import rollout_logprobs

__all__ = ["PolicyMeasure", "measure_policy"]


@dataclass(frozen=True)
class PolicyMeasure:
    """Means over prompts; `score_error` is the standard error of `score`, `kl` is in nats per response."""

    score: float
    score_error: float
    kl: float
    response_length: float
    eos_rate: float
    num_prompts: int


def measure_policy(
    policy: GPT,
    reference: GPT,
    prompts: Sequence[Sequence[int]],
    score: Scorer,
    *,
    eos_id: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    max_tokens: int = 16384,
) -> PolicyMeasure:
    """Sample one response a prompt and average what the scorer and the reference model say of it.

    prompts: token lists, the same ones for every policy that is compared. seed: the same draws for equal policies.
    max_tokens: tokens of one scoring forward. Deterministic for equal arguments.
    """
    sampling = SamplingConfig(max_new_tokens=max_new_tokens, temperature=temperature)
    seeds = episode_seeds(seed, 0, len(prompts))
    rollout = collect(policy, prompts, sampling, eos_id=eos_id, seeds=seeds, batch_size=batch_size)
    scores = score(rollout).double()
    reference_logprobs = rollout_logprobs(reference, rollout, temperature=temperature, max_tokens=max_tokens)
    kl = response_kl(rollout.logprobs, reference_logprobs, rollout.loss_mask).sum(1)
    return PolicyMeasure(
        score=scores.mean().item(),
        score_error=(scores.std(unbiased=False) / len(scores) ** 0.5).item(),
        kl=kl.mean().item(),
        response_length=rollout.loss_mask.sum(1).float().mean().item(),
        eos_rate=rollout.finished.float().mean().item(),
        num_prompts=len(prompts),
    )
