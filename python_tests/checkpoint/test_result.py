"""A finished run stands for its result, an unfinished one for its newest checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructgpt_fast.checkpoint import RESULT, load_model, resolve, result_of, write_result
from instructgpt_fast.errors import CheckpointError

from .small_run import SmallRun


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for name in ("checkpoint-000001", "checkpoint-000002", "best-000001"):
        SmallRun(0).save(folder / name)
    return folder


def test_the_newest_until_a_result_is_noted(run: Path) -> None:
    assert result_of(run).name == "checkpoint-000002"
    write_result(run, run / "best-000001", {"eval_loss": 1.5})
    assert result_of(run).name == "best-000001"
    assert load_model(run).path == run / "best-000001"
    assert resolve(run).name == "checkpoint-000002", "resuming goes on from the newest"
    assert result_of(run / "checkpoint-000001").name == "checkpoint-000001", "a checkpoint stands for itself"


@pytest.mark.parametrize("content", ["{", "{}", '{"checkpoint": 3}', '{"checkpoint": "../elsewhere"}', "[1]"])
def test_a_note_that_says_nothing(run: Path, content: str) -> None:
    (run / RESULT).write_text(content)
    with pytest.raises(CheckpointError, match=r"result\.json must name the run's checkpoint"):
        result_of(run)


def test_a_result_that_is_gone(run: Path) -> None:
    write_result(run, run / "best-000009", {})
    with pytest.raises(CheckpointError, match="best-000009 must be a checkpoint or a run directory, got nothing"):
        result_of(run)
