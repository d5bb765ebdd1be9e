"""Every rule on curves made by hand: it speaks when it should, at the right step, and is silent just short of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from instructgpt_fast.diagnosis import RULES, Finding, diagnose
from instructgpt_fast.diagnosis.thresholds import THRESHOLDS, limit

Record = dict[str, Any]


def ramp(step: int, low: float, high: float, first: int = 5, last: int = 15) -> float:
    """`low` until step `first`, then rising (or falling) to `high` at step `last`."""
    return low + (high - low) * min(max((step - first) / (last - first), 0.0), 1.0)


def wave(step: int) -> float:
    """A scatter of about 1 that repeats and that no rule may take for a trend."""
    return (0.9, -1.1, 0.2, 1.2, -0.7, -0.5)[step % 6]


def ppo(step: int) -> Record:
    """A healthy PPO record."""
    return {
        "step": step, "objective/kl": ramp(step, 0.0, 4.0), "objective/kl_per_token": ramp(step, 0.0, 0.2),
        "objective/scores": ramp(step, 0.0, 2.0) + 0.2 * wave(step), "objective/scores_std": 1.0,
        "objective/rlhf_reward": ramp(step, 0.0, 1.5) + 0.2 * wave(step), "val/eos_rate": 0.9 + 0.05 * wave(step),
        "val/response_length": 20.0 + 2.0 * wave(step), "val/response_length_std": 6.0,
        "val/score_length_correlation": 0.3 * wave(step), "policy/entropy_avg": ramp(step, 2.0, 1.4),
        "policy/approxkl_avg": 0.002, "policy/clipfrac_avg": 0.02, "policy/grad_norm": 1.0,
        "val/explained_variance": ramp(step, -0.8, 0.5), "loss/value_avg": 0.5,
    }


def lm(step: int) -> Record:
    """A healthy record of a stage with one loss, logged every 10 steps."""
    return {"step": 1 if step == 1 else 10 * (step - 1), "loss": 5.0 - 0.05 * step + 0.1 * wave(step),
            "grad_norm": 1.0, "learning_rate": 1e-3, "epoch": step / 20}


def reward(step: int) -> Record:
    return {"step": 10 * step, "loss": 0.6, "accuracy": 0.7, "eval_accuracy": 0.7, "eval_accuracy_ci95": 0.02,
            "eval_loss": 0.6 - 0.001 * step, "epoch": step / 40}


def evaluated(step: int, loss: float) -> Record:
    return {**lm(step), "eval_loss": loss}


# Rule -> stage, a record that shows it, the same just short of it. The records differ from step 10 on at most.
Shown = tuple[str, Callable[[int], Record], Callable[[int], Record]]
CASES: dict[str, Shown] = {
    "kl_below_zero": ("ppo", lambda s: {**ppo(s), "objective/kl": ramp(s, 0, -2)},
                      lambda s: {**ppo(s), "objective/kl": 0.4 * wave(s)}),
    "kl_runaway": (
        "ppo", lambda s: {**ppo(s), "objective/kl_per_token": ramp(s, 0, 1.1), "objective/kl": ramp(s, 0, 22)},
        lambda s: {**ppo(s), "objective/kl_per_token": ramp(s, 0, 0.95), "objective/kl": ramp(s, 0, 19)},
    ),
    "scores_alike": (
        "ppo", lambda s: {**ppo(s), "objective/scores": 0.7, "objective/scores_std": 1e-8},
        lambda s: {**ppo(s), "objective/scores_std": 0.0},
    ),
    "length_blow_up": ("ppo", lambda s: {**ppo(s), "val/response_length": ramp(s, 20, 45)},
                       lambda s: {**ppo(s), "val/response_length": ramp(s, 20, 38)}),
    "length_collapse": ("ppo", lambda s: {**ppo(s), "val/response_length": ramp(s, 20, 3)},
                        lambda s: {**ppo(s), "val/response_length": ramp(s, 20, 6)}),
    "eos_collapse": ("ppo", lambda s: {**ppo(s), "val/eos_rate": ramp(s, 0.9, 0.2)},
                     lambda s: {**ppo(s), "val/eos_rate": ramp(s, 0.9, 0.5)}),
    "entropy_collapse": ("ppo", lambda s: {**ppo(s), "policy/entropy_avg": ramp(s, 2, 0.2)},
                         lambda s: {**ppo(s), "policy/entropy_avg": ramp(s, 2, 0.5)}),
    "reward_hacking_by_length": (
        "ppo", lambda s: {**ppo(s), "val/score_length_correlation": 0.9, "val/response_length": ramp(s, 20, 30)},
        lambda s: {**ppo(s), "val/score_length_correlation": 0.9},
    ),
    "value_not_learning": (
        "ppo", lambda s: {**ppo(s), "val/explained_variance": -0.5 + 0.2 * wave(s)},
        lambda s: {**ppo(s), "val/explained_variance": -0.5 + 0.2 * wave(s), "loss/value_avg": 0.01},
    ),
    "clip_fraction_high": ("ppo", lambda s: {**ppo(s), "policy/clipfrac_avg": ramp(s, 0, 0.5)},
                           lambda s: {**ppo(s), "policy/clipfrac_avg": ramp(s, 0, 0.28)}),
    "learning_rate_too_high": ("ppo", lambda s: {**ppo(s), "policy/approxkl_avg": ramp(s, 0, 0.3)},
                               lambda s: {**ppo(s), "policy/approxkl_avg": 0.25 if s == 9 else 0.01}),
    "objective_falling": ("ppo", lambda s: {**ppo(s), "objective/rlhf_reward": ramp(s, 0, -2)},
                          lambda s: {**ppo(s), "objective/rlhf_reward": ramp(s, 0, -0.8)}),
    "loss_diverging": ("pretrain", lambda s: {**lm(s), "loss": lm(s)["loss"] + ramp(s, 0, 3, 20, 30)},
                       lambda s: {**lm(s), "loss": 9.0 if s == 20 else lm(s)["loss"]}),
    "loss_learning_rate_too_high": ("sft", lambda s: {**lm(s), "loss": ramp(s, 2, 7)},
                                    lambda s: {**lm(s), "loss": ramp(s, 2, 2.3)}),
    "loss_not_falling": ("sft", lambda s: {**lm(s), "loss": 3 + 0.05 * wave(s)},
                         lambda s: {**lm(s), "loss": 3 - 0.01 * s + 0.05 * wave(s)}),
    "reward_at_chance": ("reward", lambda s: {**reward(s), "eval_accuracy": 0.51},
                         lambda s: {**reward(s), "eval_accuracy": 0.51, "eval_accuracy_ci95": 0.2}),
    "evaluation_loss_rising": ("pretrain", lambda s: evaluated(s, ramp(s, 4, 5, 20, 30)),
                               lambda s: evaluated(s, 4.5 if s == 20 else 4 - 0.01 * s)),
    "loss_scale_overflows": ("sft", lambda s: {**lm(s), "loss_scale": 2.0 ** (16 - s)},
                             lambda s: {**lm(s), "loss_scale": 2.0 ** max(16 - s, 6), "grad_norm":
                                        "inf" if s in (3, 5) else 1.0}),
}


def found(stage: str, record: Callable[[int], Record], count: int = 40, **options: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnose([record(s) for s in range(1, count + 1)], stage, options)}


@pytest.mark.parametrize("case", CASES)
def test_a_rule_speaks_and_is_silent_just_short_of_that(case: str) -> None:
    stage, shown, short = CASES[case]
    name = case.removeprefix("loss_") if case == "loss_learning_rate_too_high" else case
    finding = found(stage, shown)[name]
    assert finding.step > 1
    assert any(character.isdigit() for character in finding.evidence), "evidence has numbers"
    assert str(finding.step) in finding.evidence
    assert finding.cause.endswith(".")
    assert finding.remedy.endswith(".")
    assert name not in found(stage, short)


def test_every_rule_has_a_case() -> None:
    assert {rule.name for rule in RULES} == {name.replace("loss_learning", "learning") for name in CASES}
    assert {rule.name for rule in RULES if "ppo" in rule.stages} >= {name for name in CASES if CASES[name][0] == "ppo"}


@pytest.mark.parametrize(("stage", "record"), [("ppo", ppo), ("pretrain", lm), ("sft", lm), ("reward", reward)])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 60])
def test_a_healthy_run_of_any_length_gives_none(stage: str, record: Callable[[int], Record], count: int) -> None:
    assert found(stage, record, count) == {}


@pytest.mark.parametrize(("case", "options", "words"), [
    ("kl_runaway", {"kl_coef": 0.0, "kl_target": None}, "Set kl_coef=0.02, the paper's (now 0)"),
    ("kl_runaway", {"kl_coef": 0.05, "learning_rate": 1e-4}, "learning_rate=3e-05 (now 0.0001) or kl_coef=0.15"),
    ("learning_rate_too_high", {"learning_rate": 8e-4}, "learning_rate=8e-05 (now 0.0008)"),
    ("eos_collapse", {"missing_eos_penalty": None}, "missing_eos_penalty=1"),
    ("value_not_learning", {"value_learning_rate": 1e-5}, "value_learning_rate=3e-05 (now 1e-05)"),
    ("objective_falling", {"kl_coef": 2.0}, "kl_coef=0.2 (now 2)"),
    ("loss_scale_overflows", {"dtype": "fp16"}, "dtype=bf16"),
    ("loss_diverging", {}, "a lower learning_rate"),
])
def test_remedies_name_options_with_values(case: str, options: Mapping[str, Any], words: str) -> None:
    stage, shown, _ = CASES[case]
    assert words in found(stage, shown, **options)[case].remedy


def test_short_answers_that_are_well_chosen_are_no_runaway() -> None:
    """Two tokens that say what pays: a nat and more a token, and no more in all than choosing among ten answers."""
    def record(step: int) -> Record:
        return {**ppo(step), "objective/kl_per_token": ramp(step, 0, 1.3), "objective/kl": ramp(step, 0, 2.6)}

    assert "kl_runaway" not in found("ppo", record)


def test_the_kl_of_earlier_versions_is_read_from_response_and_length() -> None:
    def record(step: int) -> Record:
        made = {**ppo(step), "objective/kl": ramp(step, 0, 25)}
        del made["objective/kl_per_token"]
        return made

    assert "nats a token (" in found("ppo", record)["kl_runaway"].evidence


def test_a_target_makes_its_own_limit() -> None:
    def record(step: int) -> Record:
        return {**ppo(step), "objective/kl": ramp(step, 0, 25)}

    assert "kl_target is 6" in found("ppo", record, kl_target=6.0)["kl_runaway"].evidence
    assert "kl_runaway" not in found("ppo", record, kl_target=12.0)
    assert "kl_runaway" not in found("ppo", record)


def test_a_rising_evaluation_loss_is_told_as_the_paper_tells_it() -> None:
    def record(step: int) -> Record:
        return evaluated(step, ramp(step, 4, 5, 20, 30))

    after_an_epoch = found("sft", record)["evaluation_loss_rising"]
    assert after_an_epoch.severity == "note"
    assert "select_by_reward" in after_an_epoch.remedy
    within = found("sft", lambda s: {**record(s), "epoch": s / 100})["evaluation_loss_rising"]
    assert within.severity == "warning"
    assert "num_train_epochs=1" in found("reward", record)["evaluation_loss_rising"].remedy
    assert found("pretrain", record)["evaluation_loss_rising"].severity == "warning"


def test_a_loss_that_is_no_number_is_found_at_its_step() -> None:
    finding = found("pretrain", lambda s: {**lm(s), "loss": "nan"} if s == 12 else lm(s))["loss_diverging"]
    assert (finding.step, finding.severity) == (110, "error")


def test_gradients_that_overflow_again_and_again() -> None:
    record = found("sft", lambda s: {**lm(s), "grad_norm": "inf"} if 7 <= s <= 9 else lm(s))
    assert record["loss_scale_overflows"].step == 80


def test_whitened_scores_say_nothing_about_the_objective() -> None:
    record = CASES["objective_falling"][1]
    assert "objective_falling" not in found("ppo", record, whiten_scores=True)


def test_batches_that_scatter_widely_could_hide_a_fall() -> None:
    assert "loss_not_falling" not in found("sft", lambda s: {**lm(s), "loss": 3 + wave(s)})


def test_a_plateau_after_a_fall_is_no_fault() -> None:
    assert found("pretrain", lambda s: {**lm(s), "loss": max(5 - 0.1 * s, 3.0) + 0.1 * wave(s)}, 200) == {}
    assert found("pretrain", lambda s: {**lm(s), "step": 10_000 + 10 * s, "loss": 3 + 0.1 * wave(s)}, 200) == {}


def test_thresholds_carry_their_reason() -> None:
    for name, threshold in THRESHOLDS.items():
        assert threshold.mark in ("P", "A", "O"), name
        assert len(threshold.reason) > 20, name
        assert limit(name) == threshold.value


def test_a_value_model_far_below_zero_is_not_learning_because_it_scatters() -> None:
    def at(step: int, last: float) -> Record:
        return {**ppo(step), "val/explained_variance": ramp(step, -15.0, last) + wave(step)}

    assert [f.name for f in diagnose((at(step, -12.0) for step in range(1, 41)), "ppo")] == ["value_not_learning"]
    assert diagnose((at(step, -5.0) for step in range(1, 41)), "ppo") == [], "it comes up by two thirds"


@pytest.mark.parametrize(("spread", "remedy"), [(4000.0, "Divide the scores by 4e+03"), (1.0, "Try value_learning")])
def test_a_value_model_under_huge_scores_needs_smaller_ones(spread: float, remedy: str) -> None:
    records = [
        {**ppo(step), "objective/scores_std": spread, "loss/value_avg": spread**2, "val/explained_variance": 1e-5}
        for step in range(1, 41)
    ]
    found = diagnose(records, "ppo", {"value_learning_rate": 1e-5})
    assert [f.name for f in found] == ["value_not_learning"]
    assert found[0].remedy.startswith(remedy)


def test_an_entropy_bonus_that_outweighs_the_score_is_named() -> None:
    def at(step: int) -> Record:
        return {
            **ppo(step), "policy/entropy_avg": ramp(step, 2.0, 4.0), "objective/rlhf_reward": ramp(step, 0.0, -3.0),
            "objective/kl_per_token": ramp(step, 0, 1.3), "objective/kl": ramp(step, 0, 26),
        }

    records = [at(step) for step in range(1, 31)]
    paid, free = (diagnose(records, "ppo", {"entropy_coef": coef, "kl_coef": 0.02}) for coef in (0.5, 0.0))
    assert {f.name for f in paid} == {f.name for f in free} == {"kl_runaway", "objective_falling"}
    assert all(f.remedy == "Set entropy_coef=0, the paper's (now 0.5), and start again." for f in paid)
    assert not any("entropy_coef" in f.remedy for f in free)


def test_scores_without_spread_give_no_unit_for_a_fall() -> None:
    records = [
        {**ppo(step), "objective/scores": 1.0, "objective/scores_std": 0.0, "objective/rlhf_reward": 1.0 - 0.001 * step}
        for step in range(1, 31)
    ]
    assert [f.name for f in diagnose(records, "ppo")] == ["scores_alike"]


def test_records_out_of_order_and_told_twice_are_one_curve() -> None:
    records = [ppo(step) for step in range(1, 41)]
    mixed = [{**records[9], "objective/kl": -50.0}, *records[20:], *records[:20]]
    assert diagnose(mixed, "ppo") == diagnose(records, "ppo") == []
    assert [f.name for f in diagnose([*records[20:], *mixed[:1] * 3, *records[:9]], "ppo")] == ["kl_below_zero"]


def test_eos_that_no_penalty_asks_for_is_named() -> None:
    records = [{**ppo(step), "val/eos_rate": ramp(step, 0.9, 0.2)} for step in range(1, 31)]
    for penalty, named in ((0.0, True), (None, True), (1.0, False)):
        found = diagnose(records, "ppo", {"missing_eos_penalty": penalty})
        assert [(f.remedy == "Set missing_eos_penalty=1.") for f in found if f.name == "eos_collapse"] == [named]


@pytest.mark.parametrize(("kl", "found"), [(0.25, []), (0.4, ["kl_runaway"])])
def test_a_policy_that_began_sure_of_itself_may_move_a_little(kl: float, found: list[str]) -> None:
    records = [
        {**ppo(step), "policy/entropy_avg": 0.02, "objective/kl_per_token": ramp(step, 0, kl),
         "objective/kl": ramp(step, 0, 10)}
        for step in range(1, 31)
    ]
    assert [f.name for f in diagnose(records, "ppo")] == found


def test_a_loss_has_two_hundred_steps_to_begin_to_fall() -> None:
    flat = [{**lm(1), "step": step, "loss": 5.0 + 0.01 * wave(step)} for step in range(1, 201)]
    assert diagnose(flat[:199], "sft") == []
    assert [(f.name, f.step) for f in diagnose(flat, "sft")] == [("loss_not_falling", 200)]


def test_what_was_there_before_a_fault_does_not_follow_from_it() -> None:
    def at(step: int) -> Record:
        return {**ppo(step), "objective/kl_per_token": ramp(step, 0, 1.3), "objective/kl": ramp(step, 0, 26),
                "policy/approxkl_avg": 0.5 if step > 25 else 0.002}

    found = {f.name: f for f in diagnose((at(step) for step in range(1, 41)), "ppo")}
    assert found["learning_rate_too_high"].step > found["kl_runaway"].step
    assert "follows from" not in found["kl_runaway"].cause


def test_a_target_holds_a_policy_whose_kl_coef_began_at_zero() -> None:
    records = [{**ppo(step), "objective/kl": ramp(step, 0, 30)} for step in range(1, 31)]
    held = diagnose(records, "ppo", {"kl_coef": 0.0, "kl_target": 5.0})
    assert [f.name for f in held] == ["kl_runaway"]
    assert "kl_coef is 0" not in held[0].cause
