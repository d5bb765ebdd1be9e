"""Every number that a rule compares with, in one table with its mark: [P] printed, [A] an ancestor's, [O] ours.

The papers print few limits: "Secrets of RLHF" (Zheng et al. 2023, arXiv:2307.04964, section 5) names what to watch (KL,
response length, perplexity, entropy) and that reward and loss do not show a collapse, without limits. So most are ours,
set so that healthy runs stay clear of them: the recipes of `make quickstart` and the runs of python_tests/diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["THRESHOLDS", "Threshold", "limit"]


@dataclass(frozen=True)
class Threshold:
    """A limit, where it comes from, and why it lies there."""

    value: float
    mark: Literal["P", "A", "O"]
    reason: str


THRESHOLDS: dict[str, Threshold] = {
    "span": Threshold(
        3, "O", "logged iterations that are averaged: one batch of a rollout may stand out by luck, three do not",
    ),
    "kl_below_zero": Threshold(
        -0.5, "O",
        "nats a response: with B responses the mean log-ratio of a true KL k scatters by sqrt(2 k / B), so three "
        "iterations of 8 responses stay above it by 4.9 standard errors for any k",
    ),
    "kl_share_of_entropy": Threshold(
        0.5, "O",
        "KL a token over the entropy a token that the policy began with: quickstart's policies end at 0.07 to 0.20",
    ),
    "kl_per_token_floor": Threshold(
        0.3, "O", "nats a token, for a policy that began with next to no entropy, where half of it is nothing",
    ),
    "kl_response": Threshold(
        6.0, "O", "nats a response, which a runaway must exceed as well: choosing the best of 1,000 answers of the "
        "reference takes log n - (n - 1) / n = 5.9 nats at most, so less is what good choosing explains",
    ),
    "kl_over_target": Threshold(
        3.0, "O", "times kl_target: the controller (Ziegler et al. 2019) has long been at its fastest by then",
    ),
    "length_span": Threshold(
        5, "O", "logged iterations that are averaged for the length, which spreads as widely as it is long",
    ),
    "length_growth": Threshold(
        2.0, "O", "times the first answers' length: quickstart's stay within 0.5 and 1.2 times",
    ),
    "length_shrinkage": Threshold(
        0.25, "O", "of the first answers' length: quickstart's fall to 0.5 for a while and come back",
    ),
    "length_spread": Threshold(
        1.0, "O", "standard deviations of the first answers' length, which growth must exceed as well",
    ),
    "eos_share": Threshold(0.5, "O", "of the first EOS rate: quickstart's rises or stays"),
    "eos_begun": Threshold(0.3, "O", "EOS rate at the start: a policy that never ended an answer has lost nothing"),
    "explained_variance": Threshold(
        0.01, "O", "a constant explains 0, and a value model that hardly moves scatters about it",
    ),
    "value_span": Threshold(10, "O", "logged iterations whose median counts: explained variance scatters most of all"),
    "value_gain": Threshold(0.1, "O", "explained variance gained since the start: below it, it does not rise either"),
    "value_gain_share": Threshold(
        0.5, "O", "of what lay below 0 at the start, gained since: -15 scatters by 3 without any learning",
    ),
    "value_patience": Threshold(
        30, "O", "logged iterations before the value model is judged: quickstart's is above 0 after 5 to 10",
    ),
    "value_loss_share": Threshold(
        0.1, "O", "of the variance that the scores began with: below it there is little left to explain",
    ),
    "clip_fraction": Threshold(
        0.3, "O", "share of tokens beyond cliprange: quickstart's stay below 0.03; common advice is 0.1 to 0.2",
    ),
    "approx_kl": Threshold(
        0.1, "O", "nats a token within one iteration: quickstart's stay below 0.01, and early stopping of PPO is "
        "commonly set at 0.015 to 0.03",
    ),
    "score_spread": Threshold(
        30.0, "O", "standard deviation of the first scores beyond which the value model needs them smaller: the "
        "paper's reward models spread by about 1, and a clipped gradient takes thousands of steps to values of 1,000",
    ),
    "scores_alike": Threshold(
        5, "O", "logged iterations, the first ones, whose scores are all one number: rare rewards may miss a few",
    ),
    "entropy_bonus": Threshold(
        1.2, "O", "times the first entropy, with entropy_coef above 0: a policy that learns gets surer, not less sure",
    ),
    "objective_fall": Threshold(
        1.0, "O", "standard deviations of the first scores: the objective of a healthy run rises",
    ),
    "length_correlation": Threshold(
        0.7, "O", "of score and length within a rollout: quickstart's reward model reaches 0.56 in single ones, and a "
        "reward that is the length stays above 0.95 until the answers are cut",
    ),
    "hacked_length_growth": Threshold(1.3, "O", "times the first answers' length, together with that correlation"),
    "hacked_score_gain": Threshold(0.5, "O", "standard deviations of the first scores that the score has risen by"),
    "entropy_share": Threshold(0.2, "O", "of the entropy that the policy began with: quickstart's stay above 0.8"),
    "loss_span": Threshold(5, "O", "logged steps whose median stands for the loss"),
    "loss_rise": Threshold(0.1, "O", "share of the lowest loss so far, on top of the next"),
    "loss_rise_nats": Threshold(
        0.5, "O", "nats above the lowest loss so far: reward models that learn by heart swing by 0.3 between batches",
    ),
    "loss_noise": Threshold(
        5.0, "O", "times the scatter of the median, which a rise must exceed as well: a reward model that learns "
        "pairs by heart reaches 4",
    ),
    "loss_above_start": Threshold(0.5, "O", "nats above the loss before the first update: worse than no training"),
    "loss_patience": Threshold(200, "O", "steps before a loss that stays where it was is reported"),
    "loss_records": Threshold(15, "O", "logged steps before a loss that stays where it was is reported"),
    "loss_fall": Threshold(0.005, "O", "share of the first loss: the least that counts as a fall"),
    "loss_doubt": Threshold(0.03, "O", "share of the first loss: where batches scatter more, a fall could be hidden"),
    "eval_rise": Threshold(0.02, "O", "share above the lowest evaluation loss, at two evaluations in a row"),
    "chance_pairs": Threshold(
        0.05, "O", "half width of the accuracy's interval: with fewer pairs nothing can be said about chance",
    ),
    "loss_scale": Threshold(
        8.0, "A", "Micikevicius et al. 2018 (arXiv:1710.03740, section 3.2) train with scales of 8 to 32K",
    ),
}


def limit(name: str) -> float:
    """The value of a threshold."""
    return THRESHOLDS[name].value
