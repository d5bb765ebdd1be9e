"""PPO-ptx: the pretraining term that keeps the policy good at plain text while PPO changes it."""

from __future__ import annotations

from torch import Tensor

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.model import GPT, shift_packed
from instructgpt_fast.ops import linear_cross_entropy

__all__ = ["ptx_backward", "ptx_examples"]


def ptx_examples(episodes: int, ratio: float) -> int:
    """Pretraining examples that go with `episodes` PPO episodes (8 each in the paper, appendix C.4), at least one."""
    if not ratio > 0.0:
        raise ConfigError(f"ptx_examples: ptx_ratio must be positive, got {ratio}; leave ptx_data out for no ptx.")
    return max(1, round(episodes * ratio))


def ptx_backward(
    policy: GPT, tokens: Tensor, *, ptx_coef: float, micro_batch_size: int, loss_scale: float = 1.0
) -> float:
    """Add ptx_coef times the gradient of the pretraining loss to the policy (Ouyang et al. 2022, eq. 2, appendix C.4).

    Called after the PPO backward of the same minibatch, into the same gradient buffers.  The paper does not print how
    its loss is averaged; here it is the mean over the minibatch's predicted tokens, so a gradient of
    -ptx_coef * mean_t log pi(x_t | x_<t) joins that of the PPO loss, which is a mean over tokens too.

    policy: gradients are added to its parameters. tokens: int64 [E, T], T at least 2, one window of text a row.
    micro_batch_size: rows of one forward; the result does not depend on it beyond rounding.
    loss_scale: factor on the gradients alone, for fp16.
    Returns the mean loss in nats per token, before ptx_coef.
    """
    rows, width = tokens.shape
    if width < 2:
        raise ConfigError(f"ptx_backward: a window needs at least 2 tokens, got {width}; raise ptx_length.")
    predicted = rows * (width - 1)
    total = 0.0
    for part in tokens.split(micro_batch_size):
        before, targets, mask = shift_packed(policy(part), part, None)
        loss = linear_cross_entropy(before, policy.lm_weight, targets, mask)
        (loss * (ptx_coef * loss_scale / predicted)).backward()
        total += loss.item()
    return total / predicted
