"""What the PPO log says, under TRL's names where TRL has one.

Reward and loss do not reveal a collapse; KL, response length, EOS rate and entropy do, so all of them are here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instructgpt_fast.ops import PpoLoss
from instructgpt_fast.rlhf.advantages import explained_variance
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.rlhf.update import Experience

__all__ = ["correlation", "rollout_metrics", "sum_stats", "update_metrics"]


def rollout_metrics(
    rollout: Rollout,
    kl: Tensor,
    scores: Tensor,
    shaped: Tensor,
    experience: Experience,
    *,
    kl_coef: float,
    raw_scores: Tensor,
) -> dict[str, float]:
    """Figures of one rollout, before its update.

    kl: f32 [B, R], nats per token. scores, shaped: f32 [B], after the EOS penalty, and as used in the reward.
    raw_scores: f32 [B], before it: their correlation with the length says what the scorer likes, not what the penalty
    does.
    `objective/kl` and `objective/entropy` are sums over a response, averaged over responses, in nats; the latter is
    the plain sample estimate -sum log pi. `objective/rlhf_reward` is the score as used plus the KL penalty.
    """
    sequence_kl = kl.sum(1).mean().item()
    lengths = rollout.loss_mask.sum(1).float()
    finished = rollout.finished.sum().item()
    return {
        "objective/kl": sequence_kl,
        "objective/entropy": -rollout.logprobs.sum(1).mean().item(),
        "objective/non_score_reward": -kl_coef * sequence_kl,
        "objective/rlhf_reward": shaped.mean().item() - kl_coef * sequence_kl,
        "objective/scores": scores.mean().item(),
        "objective/scores_std": scores.std(unbiased=False).item(),
        "objective/kl_coef": kl_coef,
        "val/num_eos_tokens": finished,
        "val/eos_rate": finished / len(rollout),
        "objective/kl_per_token": kl.sum().item() / lengths.sum().item(),
        "val/response_length": lengths.mean().item(),
        "val/response_length_std": lengths.std(unbiased=False).item(),
        "val/score_length_correlation": correlation(raw_scores, lengths),
        "val/explained_variance": explained_variance(experience.old_values, experience.returns, rollout.loss_mask),
    }


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two f32 [B], in [-1, 1]; 0.0 when one of them does not vary."""
    x, y = a.double() - a.double().mean(), b.double() - b.double().mean()
    spread = (x.square().sum() * y.square().sum()).sqrt().item()
    return (x @ y).item() / spread if spread > 0.0 else 0.0


def sum_stats(parts: Sequence[PpoLoss]) -> PpoLoss:
    """Join the micro batches of one minibatch; each is already divided by the minibatch's token count."""
    loss = torch.stack([part.loss.detach() for part in parts]).sum()
    return PpoLoss(loss, torch.stack([part.stats for part in parts]).sum(0))


def update_metrics(minibatches: Sequence[PpoLoss]) -> dict[str, float]:
    """Averages over an iteration's minibatches; `val/ratio_var` is the variance of their mean ratios."""
    ratios = torch.tensor([float(m.ratio_mean) for m in minibatches], dtype=torch.float64)

    def mean(name: str) -> float:
        return sum(float(getattr(m, name)) for m in minibatches) / len(minibatches)

    return {
        "policy/approxkl_avg": mean("approx_kl"),
        "policy/clipfrac_avg": mean("clipfrac"),
        "policy/entropy_avg": mean("entropy"),
        "loss/policy_avg": mean("policy_loss"),
        "loss/value_avg": mean("value_loss"),
        "val/clipfrac_avg": mean("value_clipfrac"),
        "val/ratio": ratios.mean().item(),
        "val/ratio_var": ratios.var().item() if len(ratios) > 1 else 0.0,
    }
