"""The diagnosis of recorded runs, of records with holes, and of a run while it goes on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.diagnosis import Finding, Watch, diagnose, read_findings, write_findings
from instructgpt_fast.diagnosis.curves import Curves

from ..train.broken_runs import FAULTS, RECORDED

Record = dict[str, Any]
STAGES = {"base": "pretrain", "sft": "sft", "reward": "reward", "ppo": "ppo", "ppo_ptx": "ppo"}


@pytest.fixture(autouse=True)
def no_arithmetic_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def recorded(name: str) -> list[Record]:
    return [json.loads(line) for line in (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", FAULTS)
def test_recorded_runs_are_named(name: str) -> None:
    found = diagnose(recorded(name), "ppo", FAULTS[name].options)
    assert [finding.name for finding in found][:1] == ([] if name == "healthy" else [FAULTS[name].finding])
    # The first finding is the fault; the others say that they follow from it.
    assert all("follows from another finding" in finding.cause for finding in found[1:])
    assert all(finding.remedy == found[0].remedy for finding in found[1:])


@pytest.mark.parametrize("name", STAGES)
def test_the_recipes_of_the_quickstart_are_healthy(name: str) -> None:
    records = recorded(f"quickstart_{name}")
    assert len(records) > 10
    assert diagnose(records, STAGES[name]) == []


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_found_stays_found(name: str) -> None:
    records, before = recorded(name), {}
    for count in range(len(records) + 1):
        now = {finding.name: finding.step for finding in diagnose(records[:count], "ppo")}
        assert now.items() >= before.items()
        assert all(step <= records[count - 1]["step"] for step in now.values())
        before = now


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward", "ppo"])
def test_records_with_holes(stage: str) -> None:
    assert diagnose([], stage) == []
    broken: list[Record] = [
        {}, {"step": None}, {"step": 1}, {"step": True, "loss": 1.0}, {"step": 2, "loss": "nan", "objective/kl": "nan"},
        {"step": 3, "loss": "text", "val/response_length": "inf", "policy/entropy_avg": None},
    ]
    named = {finding.name for finding in diagnose(broken, stage)}
    assert named == (set() if stage == "ppo" else {"loss_diverging"})


def test_a_metric_that_is_missing_or_no_number_takes_only_its_own_findings() -> None:
    records = recorded("rate_times_100")
    whole = {finding.name for finding in diagnose(records, "ppo")}
    for lost in list(records[0])[1:]:
        without = {f.name for f in diagnose([{k: v for k, v in r.items() if k != lost} for r in records], "ppo")}
        broken = {f.name for f in diagnose([{**record, lost: "nan"} for record in records], "ppo")}
        assert without <= whole
        assert broken <= whole
        assert len(without) >= len(whole) - 2


def test_a_step_recorded_twice_counts_once_and_as_the_last() -> None:
    curves = Curves([{"step": 1, "loss": 9.0}, {"step": 2, "loss": 8.0}, {"step": 1, "loss": 1.0}])
    curve = curves.curve("loss")
    assert curve.steps.tolist() == [1, 2]
    assert curve.values.tolist() == [1.0, 8.0]


def test_whole_numbers_that_no_float_holds() -> None:
    """Only a damaged log has them; the rest of it is still read."""
    records = [{"step": 1, "loss": 10**400}, {"step": 2, "loss": -(10**400)}, {"step": 10**30, "loss": 1.0}]
    assert Curves(records).curve("loss").values.tolist() == [float("inf"), float("-inf")]


def test_trailing_means_look_back_only() -> None:
    curve = Curves([{"step": step, "loss": float(step)} for step in range(1, 6)]).curve("loss")
    assert curve.trailing(3)[2:].tolist() == [2.0, 3.0, 4.0]
    assert curve.trailing_median(5)[4] == 3.0
    assert str(curve.trailing(3)[:2].tolist()) == "[nan, nan]"
    assert len(Curves().curve("loss").trailing(3)) == 0


def test_each_finding_is_told_once_and_as_it_happens() -> None:
    told: list[str] = []
    watch = Watch("ppo", {"learning_rate": 0.05}, told.append)
    heard_at = {}
    for record in recorded("rate_times_100"):
        before = len(told)
        watch.feed(record)
        for text in told[before:]:
            heard_at[text.splitlines()[0]] = record["step"]
    found = watch.conclude()
    assert len(told) == len(found) == len(heard_at)
    for finding in found:
        assert heard_at[finding.text().splitlines()[0]] == finding.step
    assert "remedy: Set learning_rate=0.005 (now 0.05)" in told[0]


def test_a_resumed_run_does_not_tell_again_what_was_told() -> None:
    records = recorded("rate_times_100")
    told: list[str] = []
    watch = Watch("ppo", {}, told.append)
    watch.replay(records[:4])
    for record in records[4:]:
        watch.feed(record)
    straight = Watch("ppo", {}, lambda text: None)
    for record in records:
        straight.feed(record)
    assert watch.conclude() == straight.conclude()
    assert "The learning rate is too high" not in "".join(told)
    assert "Answers no longer end" in "".join(told)


def test_a_long_run_is_looked_at_seldom_and_still_soon_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    findings = Watch.findings

    def counted(watch: Watch) -> list[Finding]:
        nonlocal looks
        looks += 1
        return findings(watch)

    monkeypatch.setattr(Watch, "findings", counted)
    told: list[int] = []
    step = 0
    watch = Watch("ppo", {}, lambda text: told.append(step))
    for step in range(1, 3001):
        watch.feed({"step": step, "policy/clipfrac_avg": 0.5 if step > 2000 else 0.1})
    assert 2003 <= told[0] <= 2003 + 2000 // 64 + 1
    assert looks < 400


def test_findings_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = diagnose(recorded("no_kl"), "ppo")
    assert read_findings(tmp_path) is None
    write_findings(tmp_path, found)
    assert read_findings(tmp_path) == found
    write_findings(tmp_path, [])
    assert read_findings(tmp_path) == []
