"""Records are beside the work: a disk, a scorer or a device that fails them leaves training as it would have been."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.train import account, loop, ppo_samples, train
from instructgpt_fast.train.metrics import read_metrics
from instructgpt_fast.train.records import Sample, SamplesLog, read_run, read_samples

from .material import Material
from .ppo_runs import World
from .test_records import timeless, weights

SAMPLE = Sample(step=0, prompt="a", seed=1, tokens=["b"], token_ids=[3], logprobs=[-1.0], finished=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("aside"))


def moody(prompts: list[str], responses: list[str]) -> list[float]:
    """A scorer that draws from every global generator."""
    return [random.random() + np.random.rand() + torch.rand(()).item() for _ in responses]


def test_a_scorer_that_draws_random_numbers_draws_the_same_with_samples(world: World) -> None:
    options = {"reward_fn": moody, "reward_model": None, "total_episodes": 24, "save_steps": 1}
    kept = world.run("moody", **options)
    without = world.run("moody_without", record_samples=0, **options)
    assert len({sample.step for sample in read_samples(kept.run_dir)}) == 4
    assert timeless(read_metrics(kept.run_dir)) == timeless(read_metrics(without.run_dir))
    assert weights(kept.checkpoint) == weights(without.checkpoint)


@pytest.mark.parametrize("cause", [CheckpointError("write: the disk is full"), torch.OutOfMemoryError("no room")])
def test_samples_that_cannot_be_kept_are_told_and_nothing_else_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cause: Exception
) -> None:
    def refused(*arguments: Any) -> list[Sample]:
        raise cause

    name = type(cause).__name__
    plain = world.run(f"plain_{name}", total_episodes=16, record_samples=0)
    monkeypatch.setattr(ppo_samples, "_judged", refused)
    capsys.readouterr()
    found = world.run(f"refused_{name}", total_episodes=16, progress=True)
    assert f"the samples of step 2 could not be kept, training goes on: {cause}" in capsys.readouterr().err
    assert weights(found.checkpoint) == weights(plain.checkpoint)


def test_a_run_whose_last_records_are_refused_has_its_result(
    material: Material, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: Any, **more: Any) -> None:
        raise CheckpointError("write: the disk is full")

    def no_memory(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("no room for a matrix")

    monkeypatch.setattr(SamplesLog, "write", refused)
    monkeypatch.setattr(loop, "write_findings", refused)
    monkeypatch.setattr(account, "WORTH_MEASURING", 0.0)
    monkeypatch.setattr(account, "measure_ceiling", no_memory)
    found = train("sft", init=base, data=material.demonstrations, max_steps=2, output_dir=str(tmp_path),
                  train_batch_size=4)
    assert (found.checkpoint / "model.safetensors").exists()
    assert (tmp_path / "result.json").exists()
    told = capsys.readouterr().err
    for what in ("the samples of step 0", "the samples of step 2", "the device's ceiling", "the findings"):
        assert f"{what} could not be kept" in told


def test_samples_that_the_disk_takes_half_of_leave_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SamplesLog(tmp_path)
    log.write([SAMPLE])
    before = (tmp_path / "samples.jsonl").read_bytes()

    def half(path: Any, mode: str, **more: Any) -> Any:
        with open(path, mode, **more) as file:
            file.write('{"step": 1, "pro')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("instructgpt_fast.train.records.open", half, raising=False)
    with pytest.raises(CheckpointError, match="the disk is full"):
        log.write([SAMPLE])
    monkeypatch.undo()
    assert (tmp_path / "samples.jsonl").read_bytes() == before
    log.write([SAMPLE])
    assert read_samples(tmp_path) == [SAMPLE, SAMPLE]


def test_findings_of_an_earlier_part_do_not_outlive_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    done = world.run("parts", total_episodes=16)
    findings = done.run_dir / "findings.json"
    assert json.loads(findings.read_text(encoding="utf-8")) == {"findings": []}
    world.run("parts", total_episodes=16, resume_from_checkpoint="latest", diagnose=False)
    assert not findings.exists(), "they would be taken for findings of the whole run"


def test_a_run_that_starts_over_keeps_no_sample(tmp_path: Path) -> None:
    log = SamplesLog(tmp_path)
    log.write([SAMPLE])
    log.keep_until(0)
    assert read_samples(tmp_path) == []
    assert log.steps == set()


def test_every_pass_over_an_iteration_costs(world: World) -> None:
    once, thrice = (
        read_run(world.run(f"passes_{epochs}", total_episodes=8, num_ppo_epochs=epochs, record_samples=0,
                           reward_fn=moody, reward_model=None).run_dir)
        for epochs in (1, 3)
    )
    assert once is not None
    assert thrice is not None
    # Policy 5 and value model 4 forward passes in all, against 11 and 10.
    assert 2.1 < (thrice.flops_per_unit or 0) / (once.flops_per_unit or 1) < 2.6
