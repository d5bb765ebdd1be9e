"""Rules about the answers of a PPO policy: how far from the reference, how long, how ended, how varied, how scored."""

from __future__ import annotations

import numpy as np

from instructgpt_fast.diagnosis.curves import Curve, Curves
from instructgpt_fast.diagnosis.rule import Options, Rule, Shown, change, first_true, pair
from instructgpt_fast.diagnosis.thresholds import limit

__all__ = ["RULES"]

PAPER_KL_COEF = 0.02  # Ouyang et al. 2022, appendix C.4


def _span() -> int:
    return int(limit("span"))


def kl_remedy(options: Options) -> str:
    """What to do against a KL that grows, from the options of the run."""
    now = options.get("kl_coef")
    if isinstance(now, (int, float)) and now < PAPER_KL_COEF:
        return (
            f"Set kl_coef={PAPER_KL_COEF}, the paper's (now {now:g}), or kl_target to hold the KL of a response at so "
            "many nats; start again or go on from an early checkpoint."
        )
    return (
        f"Go on from an early checkpoint with {change(options, 'learning_rate', 0.3)} or "
        f"{change(options, 'kl_coef', 3.0)}, or set kl_target."
    )


def entropy_bonus(curves: Curves, options: Options, step: int) -> Shown | None:
    """The cause and remedy of whatever is wrong at `step`, when the policy is paid for entropy and has more of it."""
    paid = options.get("entropy_coef")
    entropy = curves.curve("policy/entropy_avg").finite()
    recent = entropy.values[entropy.steps <= step][-_span():]
    if not isinstance(paid, (int, float)) or paid <= 0 or not len(recent):
        return None
    begun, now = entropy.begun(1), float(recent.mean())
    if now <= limit("entropy_bonus") * begun:
        return None
    return Shown(
        step, "", cause=f"entropy_coef pays the policy for answers at random, more than the score does: its entropy "
        f"rose from {pair(begun, now)} nats a token.",
        remedy=f"Set entropy_coef=0, the paper's (now {paid:g}), and start again.",
    )


def kl_below_zero(curves: Curves, options: Options) -> Shown | None:
    """Mean of three iterations below what sampling noise explains."""
    kl = curves.curve("objective/kl").finite()
    mean = kl.trailing(_span())
    at = first_true(mean < limit("kl_below_zero"))
    if at is None:
        return None
    step = int(kl.steps[at])
    return Shown(step, (
        f"The KL to the reference is {mean[at]:.3g} nats a response over the last {_span()} iterations up to step "
        f"{step}, and a KL cannot be negative."
    ))


def kl_runaway(curves: Curves, options: Options) -> Shown | None:
    """KL beyond a share of the entropy that the policy began with, or far above kl_target."""
    found = _kl_over_entropy(curves) or _kl_over_target(curves, options)
    if found is None:
        return None
    free = options.get("kl_coef") == 0 and options.get("kl_target") is None
    bonus = entropy_bonus(curves, options, found.step)
    if bonus is not None:
        return Shown(found.step, found.evidence, cause=bonus.cause, remedy=bonus.remedy)
    cause = "kl_coef is 0, so nothing holds the policy near the reference." if free else ""
    return Shown(found.step, found.evidence, cause=cause, remedy=kl_remedy(options))


def _kl_over_entropy(curves: Curves) -> Shown | None:
    entropy = curves.curve("policy/entropy_avg").finite()
    each, whole = _kl_of_token_and_response(curves)
    begun = entropy.begun(1)
    bound = max(limit("kl_share_of_entropy") * begun, limit("kl_per_token_floor"))
    mean, total = each.trailing(_span()), whole.trailing(_span())
    at = first_true((mean > bound) & (total > limit("kl_response")) & np.isfinite(begun))
    if at is None:
        return None
    step = int(each.steps[at])
    return Shown(step, (
        f"The KL to the reference is {mean[at]:.3g} nats a token ({total[at]:.3g} a response) by step {step}, beyond "
        f"{bound:.3g}: the policy began with an entropy of {begun:.3g} nats a token, so the reference hardly knows its "
        "answers now."
    ))


def _kl_over_target(curves: Curves, options: Options) -> Shown | None:
    target = options.get("kl_target")
    if not isinstance(target, (int, float)):
        return None
    kl = curves.curve("objective/kl").finite()
    mean = kl.trailing(_span())
    at = first_true(mean > limit("kl_over_target") * target)
    if at is None:
        return None
    step = int(kl.steps[at])
    return Shown(step, f"The KL is {mean[at]:.3g} nats a response by step {step}, kl_target is {target:g}.")


def _kl_of_token_and_response(curves: Curves) -> tuple[Curve, Curve]:
    each, whole = curves.together("objective/kl_per_token", "objective/kl")
    if not len(each):
        # A run of an earlier version recorded the KL of a response and its length.
        whole, length = curves.together("objective/kl", "val/response_length")
        with np.errstate(invalid="ignore"):  # infinite over infinite is left out below
            each = Curve(whole.steps, whole.values / np.maximum(length.values, 1.0))
    kept = np.isfinite(each.values) & np.isfinite(whole.values)
    return Curve(each.steps[kept], each.values[kept]), Curve(whole.steps[kept], whole.values[kept])


def scores_alike(curves: Curves, options: Options) -> Shown | None:
    """Every score of the first iterations is the same number."""
    score, spread = (curve.finite() for curve in curves.together("objective/scores", "objective/scores_std"))
    count = int(limit("scores_alike"))
    if min(len(score), len(spread)) < count:
        return None
    rounding = 1e-6 * max(1.0, abs(float(score.values[0])))
    if max(spread.values[:count].max(), np.ptp(score.values[:count])) > rounding:
        return None
    return Shown(int(score.steps[count - 1]), (
        f"Every answer of the first {count} logged iterations got the score {score.values[0]:.4g}: there is nothing to "
        "learn from."
    ))


def length_blow_up(curves: Curves, options: Options) -> Shown | None:
    """Answers twice as long as the first ones."""
    length = curves.curve("val/response_length").finite()
    spread = curves.curve("val/response_length_std").finite().begun(1)
    begun, mean = length.begun(_span()), length.trailing(int(limit("length_span")))
    least = begun + (limit("length_spread") * spread if np.isfinite(spread) else 0.0)
    at = first_true((mean > limit("length_growth") * begun) & (mean > least))
    if at is None:
        return None
    step = int(length.steps[at])
    return Shown(step, (
        f"Answers grew from {pair(begun, mean[at])} tokens by step {step} ({mean[at] / begun:.1f} times)."
    ))


def length_collapse(curves: Curves, options: Options) -> Shown | None:
    """Answers a quarter as long as the first ones."""
    length = curves.curve("val/response_length").finite()
    begun, mean = length.begun(_span()), length.trailing(int(limit("length_span")))
    at = first_true(mean < limit("length_shrinkage") * begun)
    if at is None:
        return None
    step = int(length.steps[at])
    return Shown(step, f"Answers shrank from {pair(begun, mean[at])} tokens by step {step}.")


def eos_collapse(curves: Curves, options: Options) -> Shown | None:
    """Half as many answers end as at first."""
    rate = curves.curve("val/eos_rate").finite()
    begun, mean = rate.begun(_span()), rate.trailing(_span())
    at = first_true(mean < limit("eos_share") * begun)
    if at is None or begun < limit("eos_begun"):
        return None
    step = int(rate.steps[at])
    penalty = options.get("missing_eos_penalty")
    cause = "missing_eos_penalty is off, and the score prefers answers that go on." if penalty in (None, 0) else ""
    remedy = "Set missing_eos_penalty=1." if cause and options else ""
    return Shown(step, f"{begun:.0%} of the answers ended with EOS at first, {mean[at]:.0%} by step {step}.",
                 cause=cause if options else "", remedy=remedy)


def entropy_collapse(curves: Curves, options: Options) -> Shown | None:
    """A fifth of the entropy is left."""
    entropy = curves.curve("policy/entropy_avg").finite()
    begun, mean = entropy.begun(1), entropy.trailing(_span())
    at = first_true(mean < limit("entropy_share") * begun)
    if at is None:
        return None
    step = int(entropy.steps[at])
    return Shown(
        step, f"The policy's entropy fell from {pair(begun, mean[at])} nats a token by step {step}.",
        remedy=kl_remedy(options),
    )


def reward_hacking_by_length(curves: Curves, options: Options) -> Shown | None:
    """Scores follow the length within a rollout, while both rise over the run."""
    correlation, length, score, spread = curves.together(
        "val/score_length_correlation", "val/response_length", "objective/scores", "objective/scores_std"
    )
    if not len(score):
        return None
    tied, long, good = correlation.trailing(_span()), length.trailing(_span()), score.trailing(_span())
    gain = good - score.begun(1)
    holds = (
        (tied > limit("length_correlation"))
        & (long > limit("hacked_length_growth") * length.begun(_span()))
        & (gain > limit("hacked_score_gain") * spread.begun(1))
    )
    at = first_true(holds)
    if at is None:
        return None
    step = int(score.steps[at])
    return Shown(step, (
        f"By step {step} the score rose from {pair(score.begun(1), good[at])} while answers grew from "
        f"{pair(length.begun(_span()), long[at])} tokens, and within a rollout score and length correlate by "
        f"{tied[at]:.2f}."
    ))


RULES = (
    Rule(
        "kl_below_zero", "The KL to the reference is below zero", "error", ("ppo",), ("objective/kl",),
        seen="`objective/kl` stays clearly negative.",
        cause="The answers were not drawn from the policy whose log-probabilities are used: another temperature, a "
              "truncated distribution, dropout, or other weights in the sampler.",
        remedy="Set old_logprobs=trainer and check_invariants=True, and report it: the checks before the first update "
               "name the part that differs.",
        find=kl_below_zero,
    ),
    Rule(
        "kl_runaway", "The policy runs away from the reference", "error", ("ppo",),
        ("objective/kl_per_token", "objective/kl", "policy/entropy_avg"),
        seen="`objective/kl_per_token` grows past half of the entropy that the policy began with and `objective/kl` "
             "past 6 nats, or `objective/kl` past three times kl_target.",
        cause="The penalty is too weak for the reward, or the steps are too large: the policy exploits the scorer.",
        remedy="Raise kl_coef (0.02 in the paper) or set kl_target; or lower learning_rate. Go on from an early "
               "checkpoint.",
        find=kl_runaway,
    ),
    Rule(
        "scores_alike", "All answers get the same score", "error", ("ppo",),
        ("objective/scores_std", "objective/scores"),
        seen="`objective/scores_std` is 0 and `objective/scores` one number from the first iteration on.",
        cause="The scorer does not look at the answer, or rewards what the policy never says; or score_clip cuts all "
              "scores to one.",
        remedy="Score a few answers of samples.jsonl by hand; begin with a reward that some of the first answers get.",
        find=scores_alike,
    ),
    Rule(
        "length_blow_up", "Answers blow up in length", "warning", ("ppo",), ("val/response_length", "val/eos_rate"),
        seen="`val/response_length` is twice what it was at first.",
        cause="The scorer prefers long answers, or EOS is no longer drawn.",
        remedy="Look at the samples; set missing_eos_penalty=1, raise kl_coef, or train the reward model on "
               "comparisons in which the longer answer often loses.",
        find=length_blow_up,
    ),
    Rule(
        "length_collapse", "Answers shrink to next to nothing", "warning", ("ppo",), ("val/response_length",),
        seen="`val/response_length` is a quarter of what it was at first.",
        cause="The scorer prefers short answers, or missing_eos_penalty outweighs the score.",
        remedy="Look at the samples; lower missing_eos_penalty, raise kl_coef, or give the reward model comparisons in "
               "which the shorter answer often loses.",
        find=length_collapse,
    ),
    Rule(
        "eos_collapse", "Answers no longer end", "error", ("ppo",), ("val/eos_rate", "val/response_length"),
        seen="`val/eos_rate` is half of what it was at first.",
        cause="The policy learned that going on pays: the score of a cut answer is no lower than that of a whole one.",
        remedy="Raise missing_eos_penalty above the spread of the scores (objective/scores_std), raise kl_coef, or "
               "give answers more room with max_response_tokens.",
        find=eos_collapse,
    ),
    Rule(
        "entropy_collapse", "The policy always says the same", "error", ("ppo",), ("policy/entropy_avg",),
        seen="`policy/entropy_avg` is a fifth of what it was at first.",
        cause="The policy found one answer that the scorer likes, and the penalty does not hold it back.",
        remedy="Raise kl_coef, lower learning_rate, or set entropy_coef above 0. Go on from an early checkpoint.",
        find=entropy_collapse,
    ),
    Rule(
        "reward_hacking_by_length", "The reward is earned by length", "error", ("ppo",),
        ("val/score_length_correlation", "val/response_length", "objective/scores"),
        seen="`val/score_length_correlation` is high while `val/response_length` and `objective/scores` rise together.",
        cause="The scorer pays for length and not for content.",
        remedy="Hold the reward model against comparisons of equal length (or look at what the reward function "
               "counts), raise kl_coef, and do not trust objective/scores of this run.",
        find=reward_hacking_by_length,
    ),
)
