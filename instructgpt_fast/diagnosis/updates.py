"""Rules about the updates of PPO: whether steps are of a sane size and whether the value model learns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instructgpt_fast.diagnosis.answers import entropy_bonus
from instructgpt_fast.diagnosis.curves import Curves
from instructgpt_fast.diagnosis.rule import Options, Rule, Shown, change, first_true, pair
from instructgpt_fast.diagnosis.thresholds import limit

__all__ = ["RULES"]


def value_not_learning(curves: Curves, options: Options) -> Shown | None:
    """Explained variance at or below 0 long after the start, and no better than then."""
    explained = curves.curve("val/explained_variance").finite()
    span = int(limit("value_span"))
    # The median: when all scores of a rollout are equal the returns hardly vary, and the figure is -10 and less.
    mean = explained.trailing_median(span)
    begun = float(np.median(explained.values[:span])) if len(mean) else 0.0
    stuck = mean < begun + max(limit("value_gain"), limit("value_gain_share") * -begun)
    late = np.arange(len(mean)) >= int(limit("value_patience")) - 1
    at = first_true((mean <= limit("explained_variance")) & stuck & late & _value_matters(curves, explained.steps))
    if at is None:
        return None
    step = int(explained.steps[at])
    spread = curves.curve("objective/scores_std").begun(1)
    if spread > limit("score_spread"):
        remedy = (
            f"Divide the scores by {spread:.3g}, their standard deviation, or set whiten_scores=True: a clipped "
            "gradient takes long to reach values so large."
        )
    else:
        remedy = (
            f"Try {change(options, 'value_learning_rate', 3.0)} if loss/value_avg falls slowly and "
            f"{change(options, 'value_learning_rate', 0.3)} if it jumps; give value_model the reward model's "
            "checkpoint."
        )
    return Shown(step, (
        f"The value model explains {mean[at]:.2f} of the returns' variance (median of {span} logged "
        f"iterations up to step {step}); a constant would explain 0."
    ), remedy=remedy)


def _value_matters(curves: Curves, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where the value loss is no small thing beside the variance that the scores began with; bool, one a step.

    A policy that always gets the best score leaves nothing to explain, and a good value model explains none of it.
    """
    loss, spread = curves.together("loss/value_avg", "objective/scores_std")
    loss = loss.finite()
    if not len(loss):
        return np.ones(len(steps), dtype=bool)
    recent = loss.trailing_median(int(limit("value_span")))
    matters = recent > limit("value_loss_share") * spread.begun(1) ** 2
    return np.isin(steps, loss.steps[matters])


def clip_fraction_high(curves: Curves, options: Options) -> Shown | None:
    """Too many tokens beyond the clip range."""
    clipped = curves.curve("policy/clipfrac_avg").finite()
    mean = clipped.trailing(int(limit("span")))
    at = first_true(mean > limit("clip_fraction"))
    if at is None:
        return None
    step = int(clipped.steps[at])
    return Shown(
        step, f"{mean[at]:.0%} of the tokens lie beyond cliprange by step {step}, and the update ignores most of them.",
        remedy=f"Set {change(options, 'learning_rate', 0.3)}, or num_ppo_epochs=1, or a larger mini_batch_size.",
    )


def learning_rate_too_high(curves: Curves, options: Options) -> Shown | None:
    """Approx-KL of an iteration beyond any sane step."""
    moved = curves.curve("policy/approxkl_avg").finite()
    mean = moved.trailing(int(limit("span")))
    at = first_true(mean > limit("approx_kl"))
    if at is None:
        return None
    step = int(moved.steps[at])
    return Shown(step, (
        f"The policy moves by {mean[at]:.3g} nats a token within one iteration by step {step}, above "
        f"{limit('approx_kl'):g}."
    ), remedy=f"Set {change(options, 'learning_rate', 0.1)} and start again, or go on from an early checkpoint.")


def objective_falling(curves: Curves, options: Options) -> Shown | None:
    """Score less penalty below what it was before training."""
    if options.get("whiten_scores"):
        return None  # whitened scores have mean 0 in every iteration, so that only the penalty is left
    reward, spread, score = curves.together(
        "objective/rlhf_reward", "objective/scores_std", "objective/scores"
    )
    mean, begun = reward.trailing(int(limit("span"))), reward.begun(1)
    if not spread.begun(1) > 0:
        return None  # scores without any spread give no unit to measure a fall in
    at = first_true(mean < begun - limit("objective_fall") * spread.begun(1))
    if at is None:
        return None
    step = int(reward.steps[at])
    evidence = f"Score less KL penalty fell from {pair(begun, mean[at])} by step {step}; training exists to raise it."
    lower = change(options, "learning_rate", 0.1)
    lost = score.begun(1) - score.trailing(int(limit("span")))[at]
    bonus = entropy_bonus(curves, options, step)
    if bonus is not None:
        return Shown(step, evidence, cause=bonus.cause, remedy=bonus.remedy)
    if lost < 0.5 * (begun - mean[at]):
        return Shown(
            step, evidence, cause="The penalty grew and not the score: kl_coef outweighs it, or the steps are so large "
            "that the policy drifts without earning anything.",
            remedy=f"Set {change(options, 'kl_coef', 0.1)} (0.02 in the paper) or {lower}, and start again.",
        )
    return Shown(
        step, evidence, cause="The score itself fell: the policy broke, most likely by steps that are too large.",
        remedy=f"Set {lower} and start again, or go on from an early checkpoint.",
    )


RULES = (
    Rule(
        "value_not_learning", "The value model does not learn", "warning", ("ppo",),
        ("val/explained_variance", "loss/value_avg"),
        seen="`val/explained_variance` is at or below 0.01 after 30 logged iterations and does not rise.",
        cause="The value model cannot follow the returns: its learning rate is too low or too high, or it began with a "
              "fresh head.",
        remedy="Raise value_learning_rate if loss/value_avg falls slowly, lower it if it jumps; give value_model the "
               "reward model's checkpoint.",
        find=value_not_learning,
    ),
    Rule(
        "clip_fraction_high", "Most of an update is clipped away", "warning", ("ppo",),
        ("policy/clipfrac_avg", "policy/approxkl_avg", "val/ratio"),
        seen="`policy/clipfrac_avg` is above 0.3.",
        cause="The policy moves too far between rollout and the end of the iteration: the steps are too large or too "
              "many.",
        remedy="Lower learning_rate, set num_ppo_epochs=1, or raise mini_batch_size.",
        find=clip_fraction_high,
    ),
    Rule(
        "learning_rate_too_high", "The learning rate is too high", "error", ("ppo",),
        ("policy/approxkl_avg", "policy/clipfrac_avg", "policy/grad_norm"),
        seen="`policy/approxkl_avg` is above 0.1 nats.",
        cause="One iteration changes the policy beyond what its rollout can tell about.",
        remedy="Set a tenth of learning_rate and start again, or go on from an early checkpoint.",
        find=learning_rate_too_high,
    ),
    Rule(
        "objective_falling", "The objective falls", "error", ("ppo",),
        ("objective/rlhf_reward", "objective/scores", "objective/kl"),
        seen="`objective/rlhf_reward` is a standard deviation of the first scores below where it began.",
        cause="The policy broke: the learning rate is too high, or kl_coef makes the penalty outweigh the score.",
        remedy="Set a tenth of learning_rate and start again, or go on from an early checkpoint.",
        find=objective_falling,
    ),
)
