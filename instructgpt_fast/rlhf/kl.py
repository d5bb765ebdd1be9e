"""KL control: the coefficient beta of the per-token KL penalty, fixed or adapted to a target.

Not covered: an estimate of KL other than log pi - log pi_ref on the sampled tokens (unbiased, of either sign).
"""

from __future__ import annotations

import math

from torch import Tensor

from instructgpt_fast.errors import ConfigError

__all__ = ["adapt_kl_coef", "response_kl"]


def response_kl(logprobs: Tensor, ref_logprobs: Tensor, loss_mask: Tensor) -> Tensor:
    """Per-token KL sample log pi(y_t) - log pi_SFT(y_t), which times -beta is a reward (Ouyang et al. 2022, eq. 2).

    logprobs, ref_logprobs: f32 [B, R], nats; whatever stands at uncounted positions is ignored.
    loss_mask: bool [B, R]. Returns f32 [B, R], 0 at uncounted positions.
    """
    return (logprobs - ref_logprobs).masked_fill(~loss_mask, 0.0)


def adapt_kl_coef(
    kl_coef: float, observed_kl: float, target: float, *, gain: float = 0.1, max_error: float = 0.2
) -> float:
    """Next beta of the log-space proportional controller (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).

    e = clip((KL - target) / target, -max_error, max_error);  beta' = beta * (1 + gain * e).
    kl_coef: beta now, at least 0. observed_kl, target: nats per response; target > 0.
    Raises ConfigError when target is not positive, or the observation is not a number.
    """
    if not target > 0.0:
        raise ConfigError(f"adapt_kl_coef: kl_target must be positive, got {target}; leave it out for a fixed kl_coef.")
    if math.isnan(observed_kl):
        raise ConfigError("adapt_kl_coef: the observed KL must be a number, got nan; look for a non-finite loss.")
    error = min(max((observed_kl - target) / target, -max_error), max_error)
    return kl_coef * (1.0 + gain * error)
