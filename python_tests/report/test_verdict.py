"""What stands first in a run's section: the fault, its remedy once, and never a clean bill for what was not judged."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path

import pytest

from instructgpt_fast.diagnosis import Finding
from instructgpt_fast.report.read import RunFiles, read_run_files
from instructgpt_fast.report.verdict import verdict

from . import runs
from .document import Node, parsed

STOPPED = {"step": 12, "values": {"loss": "nan", "grad_norm": "inf"}, "first_nonfinite": "parameter model.wte (1 of 9)"}


def shown(run: RunFiles) -> Node:
    return parsed(str(verdict(run)))


@pytest.mark.parametrize("kept", [None, []])
def test_a_run_without_a_finite_number_has_no_clean_bill(tmp_path: Path, kept: list[Finding] | None) -> None:
    """Whether it wrote down itself that it had found nothing, or not."""
    records = [{name: math.nan if name != "step" else 7 for name in record} for record in runs.ppo_records(3)]
    run = RunFiles(tmp_path, stage="ppo", records=records, findings=kept)
    assert "Nothing found" not in shown(run).text
    assert "no record holds a finite number" in shown(run).text
    records[0]["objective/kl"] = 0.5
    rows = {row[0]: row[1] for row in shown(run).rows()[1:]}
    assert rows["The KL to the reference is below zero"] == "not found"
    assert rows["Answers no longer end"] == "not judged: not finite"


def test_a_run_that_stopped_at_a_number_that_is_not_finite(tmp_path: Path) -> None:
    """The first thing that is said, until the run goes on past it."""
    runs.write_language_model(tmp_path, steps=12)
    (tmp_path / "result.json").unlink()
    (tmp_path / "nonfinite-000012").mkdir()
    (tmp_path / "nonfinite-000012" / "report.json").write_text(json.dumps(STOPPED))
    card = shown(read_run_files(tmp_path)).all("article", "finding")[0].text
    for words in ("error", "from step 12", "loss = nan, grad_norm = inf", "parameter model.wte", "nonfinite-000012",
                  "Lower learning_rate"):
        assert words in card
    runs.finish(tmp_path, 12)
    assert read_run_files(tmp_path).stopped is None
    (tmp_path / "result.json").unlink()
    (tmp_path / "nonfinite-000012" / "report.json").write_text("[]")
    damaged = read_run_files(tmp_path)
    assert damaged.stopped is None
    assert "nonfinite-000012/report.json could not be read" in damaged.notes[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_not_finite_is_judged_in_silence(tmp_path: Path, seed: int) -> None:
    """No warning of numpy on the terminal, for any mixture of nan, infinities and numbers beyond squaring."""
    rng = random.Random(seed)
    odd = [math.nan, math.inf, -math.inf, 1e200, 1e-250, 1.0]
    records = [
        {name: value if name == "step" else rng.choice(odd) for name, value in record.items()}
        for record in runs.ppo_records(60)
    ]
    for stage in ("ppo", "reward", "pretrain"):
        rows = [{**record, "loss": rng.choice(odd), "eval_accuracy": rng.choice(odd)} for record in records]
        assert shown(RunFiles(tmp_path, stage=stage, records=rows)).text


def test_a_remedy_is_said_once(tmp_path: Path) -> None:
    brought = dataclasses.replace(runs.FINDING, name="eos_collapse", cause="It follows from another finding.")
    run = RunFiles(tmp_path, stage="ppo", records=runs.ppo_records(2), findings=[runs.FINDING, brought])
    first, second = shown(run).all("article", "finding")
    assert "Set kl_coef=0.02." in first.text
    assert "Remedy" not in second.text
    assert "It follows from another finding." in second.text
