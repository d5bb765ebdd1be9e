"""Rules about stages that minimise one loss (pretraining, SFT, reward model), and about fp16's loss scale."""

from __future__ import annotations

import math

import numpy as np

from instructgpt_fast.diagnosis.curves import Curve, Curves, Numbers
from instructgpt_fast.diagnosis.rule import Options, Rule, Shown, change, first_true, pair
from instructgpt_fast.diagnosis.thresholds import limit

__all__ = ["RULES"]

LOSS_STAGES = ("pretrain", "sft", "reward")
EVERY_STAGE = (*LOSS_STAGES, "ppo")
OVERFLOWS = 3  # gradients beyond fp16 among as many logged steps in a row


def scatter(values: Numbers) -> Numbers:
    """Standard deviation about the trend, from all steps between neighbours up to each value; float64 [n].

    The mean of |d| of normal differences with standard deviation sqrt(2) s is 1.128 s.
    """
    moved = np.abs(np.diff(values, prepend=values[:1]))
    return np.cumsum(moved) / np.maximum(np.arange(len(values)), 1) / 1.128


def _smooth_loss(curves: Curves) -> tuple[Curve, Numbers, Numbers]:
    loss = curves.curve("loss").finite()
    span = int(limit("loss_span"))
    # The scatter of a median of `span` values, 1.25 / sqrt(span) times that of one.
    return loss, loss.trailing_median(span), limit("loss_noise") * 1.25 / math.sqrt(span) * scatter(loss.values)


def loss_diverging(curves: Curves, options: Options) -> Shown | None:
    """The loss is no number, or its median rose clearly above the lowest one so far."""
    raw = curves.curve("loss")
    broken = first_true(~np.isfinite(raw.values))
    loss, median, noise = _smooth_loss(curves)
    lowest = np.fmin.accumulate(median) if len(median) else median
    at = first_true(median > lowest + np.maximum(limit("loss_rise") * lowest + limit("loss_rise_nats"), noise))
    remedy = f"Go on from a checkpoint before with {change(options, 'learning_rate', 0.3)}, or set max_grad_norm=1."
    if broken is not None and (at is None or raw.steps[broken] <= loss.steps[at]):
        return Shown(int(raw.steps[broken]), f"The loss is {raw.values[broken]} at step {raw.steps[broken]}.",
                     remedy=remedy)
    if at is None:
        return None
    step = int(loss.steps[at])
    return Shown(step, f"The loss rose from {pair(lowest[at], median[at])} nats by step {step}.", remedy=remedy)


def loss_rate_too_high(curves: Curves, options: Options) -> Shown | None:
    """The loss is above that of the model before its first update."""
    loss, median, _ = _smooth_loss(curves)
    if not len(loss) or loss.steps[0] != 1:
        return None
    begun = loss.begun(1)
    at = first_true(median > begun + limit("loss_above_start"))
    if at is None:
        return None
    step = int(loss.steps[at])
    return Shown(
        step, f"The loss is {median[at]:.3g} nats at step {step}, above the {begun:.3g} before the first update.",
        remedy=f"Set {change(options, 'learning_rate', 0.1)} and start again.",
    )


def loss_not_falling(curves: Curves, options: Options) -> Shown | None:
    """After 200 steps the last third of the losses is where the first was."""
    loss = curves.curve("loss").finite()
    if not len(loss) or loss.steps[0] != 1:
        return None  # the beginning is not known, so neither is what it fell from
    for at in range(int(limit("loss_records")) - 1, len(loss)):
        if loss.steps[at] < limit("loss_patience"):
            continue
        seen = loss.values[:at + 1]
        third = len(seen) // 3
        first, last = seen[:third], seen[-third:]
        fall = first.mean() - last.mean()
        doubt = 2.0 * math.sqrt(2.0 / third) * scatter(seen)[-1]
        if fall < limit("loss_fall") * first.mean() and doubt < limit("loss_doubt") * first.mean():
            step = int(loss.steps[at])
            return Shown(
                step, f"The loss was {first.mean():.4g} nats at first and is {last.mean():.4g} by step {step}.",
                remedy=f"Try {change(options, 'learning_rate', 3.0)}; look whether the data are what you think.",
            )
        return None  # it fell in its first 200 steps; a plateau later is the end of training, not a fault
    return None


def reward_at_chance(curves: Curves, options: Options) -> Shown | None:
    """Held-out accuracy no better than a coin, on enough pairs to know."""
    accuracy, half = curves.together("eval_accuracy", "eval_accuracy_ci95")
    at = first_true((half.values < limit("chance_pairs")) & (accuracy.values - half.values <= 0.5))
    if at is None:
        return None
    step = int(accuracy.steps[at])
    return Shown(step, (
        f"{accuracy.values[at]:.1%} +- {half.values[at]:.1%} of held-out pairs are in the labeler's order at step "
        f"{step}; a coin gets 50 %."
    ), remedy=(
        "Look whether rank 1 is the best in the data, not the worst; start from the SFT model; "
        f"try {change(options, 'learning_rate', 3.0)}."
    ))


def evaluation_loss_rising(curves: Curves, options: Options) -> Shown | None:
    """Two evaluations in a row above the lowest one, while the training loss does not rise."""
    held_out = curves.curve("eval_loss").finite()
    if len(held_out) < 3:
        return None
    lowest = np.minimum.accumulate(held_out.values)
    above = held_out.values > lowest * (1.0 + limit("eval_rise"))
    at = first_true(above & np.concatenate(([False], above[:-1])))
    if at is None:
        return None
    step, best = int(held_out.steps[at]), int(held_out.steps[held_out.values[:at + 1].argmin()])
    epoch = curves.curve("epoch")
    passed = epoch.values[epoch.steps <= step]
    evidence = (
        f"The evaluation loss rose from {pair(lowest[at], held_out.values[at])} nats between steps {best} and {step}"
        + (f", after {passed[-1]:.3g} epochs." if len(passed) else ".")
    )
    return _overfitting(options, step, evidence, float(passed[-1]) if len(passed) else math.nan)


def _overfitting(options: Options, step: int, evidence: str, epoch: float) -> Shown:
    stage = options.get("stage")
    if stage == "sft" and not epoch < 1.0:
        return Shown(
            step, evidence, severity="note",
            cause="Expected: the paper's SFT models overfit by loss after one epoch, while their reward still rises "
                  "(Ouyang et al. 2022, section 3.5).",
            remedy="Choose the checkpoint by reward with select_by_reward, and not by this loss.",
        )
    if stage == "reward":
        return Shown(
            step, evidence, cause="Comparisons seen twice are learned by heart, above all when not grouped "
            "(Ouyang et al. 2022, footnote 5).",
            remedy="Set num_train_epochs=1 and grouped=True, as the paper does.",
        )
    return Shown(step, evidence)


def loss_scale_overflows(curves: Curves, options: Options) -> Shown | None:
    """fp16's loss scale fell below what is ever needed, or gradients overflow again and again."""
    scale, norm = curves.curve("loss_scale"), curves.curve("grad_norm")
    low = first_true(scale.values < limit("loss_scale"))
    infinite = ~np.isfinite(norm.values)
    run = np.convolve(infinite, np.ones(OVERFLOWS), "valid") if len(infinite) >= OVERFLOWS else np.zeros(0)
    again = first_true(run >= OVERFLOWS)
    steps = [] if low is None else [int(scale.steps[low])]
    steps += [] if again is None else [int(norm.steps[again + OVERFLOWS - 1])]
    if not steps:
        return None
    step = min(steps)
    known = scale.values[scale.steps <= step]
    told = f"; the loss scale is {known[-1]:g}" if len(known) else ""
    return Shown(
        step, f"Gradients overflow fp16 again and again by step {step}{told}.",
        remedy=f"Train in dtype=bf16 or fp32, or set {change(options, 'learning_rate', 0.3)}.",
    )


RULES = (
    Rule(
        "loss_diverging", "The loss diverges", "error", LOSS_STAGES, ("loss", "grad_norm"),
        seen="`loss` is not finite, or rises clearly above its lowest value.",
        cause="Steps are too large, or a stretch of the data is unlike the rest.",
        remedy="Go on from a checkpoint before with a third of learning_rate, or set max_grad_norm=1.",
        find=loss_diverging,
    ),
    Rule(
        "learning_rate_too_high", "The learning rate is too high", "error", LOSS_STAGES, ("loss", "learning_rate"),
        seen="`loss` lies above that of the first step.",
        cause="The updates undo what the model knew.",
        remedy="Set a tenth of learning_rate and start again.",
        find=loss_rate_too_high,
    ),
    Rule(
        "loss_not_falling", "The loss does not fall", "warning", ("pretrain", "sft"), ("loss", "learning_rate"),
        seen="`loss` is after 200 steps where it was at first.",
        cause="The learning rate is too low, warm-up is too long, or there is nothing to learn in the data.",
        remedy="Raise learning_rate; look whether the data are what you think.",
        find=loss_not_falling,
    ),
    Rule(
        "reward_at_chance", "The reward model orders pairs no better than a coin", "error", ("reward",),
        ("eval_accuracy", "eval_accuracy_ci95"),
        seen="`eval_accuracy` less its interval is at or below one half.",
        cause="The labels are noise or turned round, or nothing was learned.",
        remedy="Look whether rank 1 is the best in the data, not the worst; start from the SFT model; raise "
               "learning_rate.",
        find=reward_at_chance,
    ),
    Rule(
        "evaluation_loss_rising", "The evaluation loss rises", "warning", LOSS_STAGES, ("eval_loss", "loss"),
        seen="`eval_loss` rises at two evaluations in a row. In SFT after one epoch this is a note and no fault.",
        cause="The model learns the training data by heart.",
        remedy="Train for fewer epochs, on more data, or with residual_dropout above 0.",
        find=evaluation_loss_rising,
    ),
    Rule(
        "loss_scale_overflows", "Gradients overflow fp16 again and again", "warning", EVERY_STAGE,
        ("loss_scale", "grad_norm"),
        seen="`loss_scale` falls below 8, or `grad_norm` is inf at three logged steps in a row.",
        cause="The gradients are too large for fp16, which skips these steps.",
        remedy="Train in bf16 or fp32, or lower learning_rate.",
        find=loss_scale_overflows,
    ),
)
