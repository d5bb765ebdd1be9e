"""Run directories that are damaged, unfinished, resumed or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.report.read import find_runs, read_run_files

from . import runs


def test_a_run_that_crashed_in_the_middle_of_a_line(tmp_path: Path) -> None:
    runs.write_metrics(tmp_path, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}], '{"step": 3, "lo')
    run = read_run_files(tmp_path)
    assert [record["step"] for record in run.records] == [1, 2]
    assert run.records[1]["loss"] == "nan"
    assert (run.result, run.findings, run.stage) == (None, None, None)
    assert any("half a line" in note for note in run.notes)


def test_the_second_attempt_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """A run that crashed before its first checkpoint begins again at step 1, below the records of before."""
    first = [{"step": step, "loss": 9.0} for step in (1, 2, 3, 4)]
    second = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_loss": 1.5}]
    runs.write_metrics(tmp_path, [*first, *second])
    run = read_run_files(tmp_path)
    assert run.records == second
    assert any("begun again: 4 records" in note for note in run.notes)


def test_lines_and_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    runs.write_ppo(tmp_path, steps=4)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    lines[1:1] = ["{broken", "[1, 2]", '{"loss": 1}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    for name in ("run.json", "findings.json", "result.json", "resolved.toml", "calibration.json"):
        (tmp_path / name).write_text("{")
    with open(tmp_path / "samples.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 1}\n')
    run = read_run_files(tmp_path)
    assert len(run.records) == 4
    assert len(run.samples) == 9
    told = " ".join(run.notes)
    for words in ("2 lines that are no JSON object, the first at line 2", "1 records of metrics.jsonl have no step",
                  "run.json", "findings.json", "result.json", "resolved.toml", "calibration.json", "1 samples"):
        assert words in told


@pytest.mark.parametrize("write, stage", [
    (runs.write_language_model, "pretrain"), (runs.write_reward, "reward"), (runs.write_ppo, "ppo"),
])
def test_the_stage_of_an_older_run_is_known_by_its_options(write: object, stage: str, tmp_path: Path) -> None:
    write(tmp_path)  # type: ignore[operator]
    (tmp_path / "run.json").unlink(missing_ok=True)
    assert read_run_files(tmp_path).stage == stage


def test_a_folder_of_runs(tmp_path: Path) -> None:
    for name in ("b", "a"):
        runs.write_metrics(tmp_path / name, [])
    (tmp_path / "data").mkdir()
    assert [path.name for path in find_runs(tmp_path)] == ["a", "b"]
    with pytest.raises(ConfigError, match="name the output_dir"):
        find_runs(tmp_path / "data")
    with pytest.raises(ConfigError, match="must be a directory"):
        find_runs(tmp_path / "nowhere")


def test_an_empty_log_is_a_run_without_records(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "samples.jsonl").write_text(json.dumps([1]) + "\n")
    run = read_run_files(tmp_path)
    assert (run.records, run.samples, run.last_step) == ([], [], 0)
