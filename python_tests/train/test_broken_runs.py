"""The diagnosis names real runs that were broken on purpose, while they run and after, and no healthy one."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructgpt_fast.diagnosis import diagnose, read_findings
from instructgpt_fast.train import train
from instructgpt_fast.train.metrics import read_metrics
from instructgpt_fast.train.records import read_samples

from .broken_runs import FAULTS, BrokenRuns, has_dog


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> BrokenRuns:
    return BrokenRuns(tmp_path_factory.mktemp("broken"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_real_run_is_named(runs: BrokenRuns, name: str) -> None:
    folder = runs.run(name)
    found = read_findings(folder)
    assert found is not None
    assert [finding.name for finding in found][:1] == ([] if name == "healthy" else [FAULTS[name].finding])
    assert diagnose(read_metrics(folder), "ppo", runs.options(name, **FAULTS[name].options)) == found
    steps = sorted({sample.step for sample in read_samples(folder)})
    assert steps == [0, 10, 20, 30, 40]


@pytest.mark.slow
def test_pretraining_is_named_too(runs: BrokenRuns, tmp_path: Path) -> None:
    assert read_findings(runs.base.run_dir) == []
    shape = {"n_layer": 2, "n_head": 2, "d_model": 32, "n_positions": 64, "model": "tiny", "vocab_size": 300}
    fast = train("pretrain", data=str(runs.text), max_steps=150, per_device_train_batch_size=8, learning_rate=1.0,
                 max_grad_norm=None, output_dir=str(tmp_path / "fast"), progress=False, **shape)
    found = read_findings(fast.run_dir)
    assert found is not None
    assert found[0].name == "learning_rate_too_high"
    slow = train("pretrain", data=str(runs.text), max_steps=250, per_device_train_batch_size=2, learning_rate=1e-9,
                 output_dir=str(tmp_path / "slow"), progress=False, **shape)
    assert [finding.name for finding in read_findings(slow.run_dir) or []] == ["loss_not_falling"]


def test_a_finding_is_said_with_its_remedy_while_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three iterations at a wild rate are enough to hear it; the policy is a fresh one, to be quick."""
    from .ppo_runs import World

    world = World(tmp_path)
    options = {"total_episodes": 32, "learning_rate": 1.0, "record_samples": 0, "progress": True}
    loud = world.run("loud", reward_fn=has_dog, **options)
    said = capsys.readouterr().err
    assert said.count("error: The learning rate is too high") == 1
    assert "remedy: Set learning_rate=0.1 (now 1)" in said
    assert "learning_rate_too_high" in {finding.name for finding in read_findings(loud.run_dir) or []}
    quiet = world.run("quiet", reward_fn=has_dog, diagnose=False, **options)
    assert "learning rate" not in capsys.readouterr().err
    assert read_findings(quiet.run_dir) is None
