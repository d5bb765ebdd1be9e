"""PPO reruns: ptx off and on, and beta 0, 0.02 and 2 (Ouyang et al. 2022, appendices E.6, E.7 and E.11)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.ablations.findings import Finding, finding
from benchmarks.ablations.finished import Quickstart
from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.quickstart.results import PolicyScores, measure_perplexity, measure_policy
from instructgpt_fast.train import train

BETA = 0.02  # the paper's
SFT, PLAIN, PTX, FREE, TIED = "SFT", "PPO, beta 0.02", "PPO-ptx, beta 0.02", "PPO, beta 0", "PPO, beta 2"
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    PLAIN: ("ppo", {"kl_coef": BETA}),
    PTX: ("ppo_ptx", {"kl_coef": BETA}),
    FREE: ("ppo", {"kl_coef": 0.0}),
    TIED: ("ppo", {"kl_coef": 2.0}),
}
KEPT = 1.01  # perplexity within one percent of the SFT model's counts as kept


@dataclass(frozen=True)
class Policy:
    """One trained policy: its scores on held-out prompts, its perplexity on held-out text, seconds of training."""

    name: str
    seed: int
    scores: PolicyScores
    perplexity: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "seed": self.seed, **asdict(self.scores), "perplexity": self.perplexity,
            "seconds": self.seconds,
        }


def train_policies(
    source: Quickstart, output: Path, seeds: Sequence[int], episodes: int, say: Callable[[str], None]
) -> list[Policy]:
    """Train every variant with every seed and measure it beside the SFT model, on the same prompts and draws."""
    sft, reward, labelers = source.load("sft"), source.load("reward"), source.labelers()
    texts = [row["text"] for row in source.material.rows(source.material.validation_text)]
    prompts = [row["prompt"] for row in source.material.rows(source.material.validation_demonstrations)]

    def judged(name: str, seed: int, policy: Any, seconds: float) -> Policy:
        scores = measure_policy(
            policy, sft, reward, labelers, prompts, source.plan.answer_tokens, source.seed + 3 + seed
        )
        found = Policy(name, seed, scores, measure_perplexity(policy, texts), seconds)
        say(
            f"{name}, seed {seed}: reward {scores.reward:.3f}, KL {scores.kl:.2f}, perplexity {found.perplexity:.2f} "
            f"({seconds:.0f} s)"
        )
        return found

    policies = [judged(SFT, seed, sft, 0.0) for seed in seeds]
    for number, (name, (stage, changes)) in enumerate(VARIANTS.items()):
        for seed in seeds:
            folder = output / f"policy-{number}-seed-{seed}"
            options = source.options(stage, folder, seed, total_episodes=episodes, **changes)
            started = time.monotonic()
            checkpoint = train(options).checkpoint
            policies.append(judged(name, seed, load_model(checkpoint), time.monotonic() - started))
    return policies


def policy_findings(policies: Sequence[Policy]) -> list[Finding]:
    """The directions of the paper, each as a difference a seed; errors treat the two policies' draws as independent."""
    by_name = {name: [p for p in policies if p.name == name] for name in (SFT, *VARIANTS)}
    perplexity = {name: [p.perplexity for p in found] for name, found in by_name.items()}

    def rise(worse: str, better: str, factor: float = 1.0) -> list[float]:
        return [a - factor * b for a, b in zip(perplexity[worse], perplexity[better], strict=True)]

    def score(claim: str, source: str, field: str, high: str, low: str) -> Finding:
        pairs = list(zip(by_name[high], by_name[low], strict=True))
        differences = [getattr(a.scores, field) - getattr(b.scores, field) for a, b in pairs]
        errors = [
            math.hypot(getattr(a.scores, f"{field}_error"), getattr(b.scores, f"{field}_error")) for a, b in pairs
        ]
        return finding(claim, source, field, differences, errors)

    kl = [a.scores.kl - b.scores.kl for a, b in zip(by_name[FREE], by_name[PLAIN], strict=True)]
    tied = [a.scores.kl - b.scores.kl for a, b in zip(by_name[PLAIN], by_name[TIED], strict=True)]
    unit = "perplexity"
    return [
        finding("ptx off: perplexity rises above the SFT model's", "E.11", unit, rise(PLAIN, SFT)),
        finding("ptx on: perplexity below that with ptx off", "E.11", unit, rise(PLAIN, PTX)),
        finding(
            "ptx on: perplexity within 1 % of the SFT model's, or below", "E.11", unit,
            [-difference for difference in rise(PTX, SFT, KEPT)],
        ),
        score("PPO raises the reward over the SFT model's", "section 4", "reward", PLAIN, SFT),
        score("PPO raises the labelers' opinion over the SFT model's", "section 4", "opinion", PLAIN, SFT),
        finding("beta 2 without ptx: perplexity still above the SFT model's", "E.6", unit, rise(TIED, SFT)),
        score("beta 2 without ptx: less reward than PPO-ptx", "E.6", "reward", PTX, TIED),
        score("beta 2: less reward than beta 0.02", "E.7", "reward", PLAIN, TIED),
        score("beta 2: lower opinion than beta 0.02", "E.7", "opinion", PLAIN, TIED),
        score("beta 0: lower opinion than beta 0.02", "E.7", "opinion", PLAIN, FREE),
        finding("beta 0: perplexity above that of beta 0.02", "E.7", unit, rise(FREE, PLAIN)),
        finding("beta 0: more KL than beta 0.02", "E.7", "nats", kl),
        finding("beta 2: less KL than beta 0.02", "E.7", "nats", tied),
    ]
