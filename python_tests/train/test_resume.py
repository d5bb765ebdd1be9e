"""A run that stopped and went on ends in the same bytes as one that never stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.errors import DataError
from instructgpt_fast.train import train
from instructgpt_fast.train.metrics import read_metrics

from .material import Material

ROOT = Path(__file__).resolve().parents[2]
Options = dict[str, Any]


def weights_of(checkpoint: Path) -> dict[str, bytes]:
    """Every tensor file of a checkpoint: model, other modules, optimizers."""
    return {str(path.relative_to(checkpoint)): path.read_bytes() for path in sorted(checkpoint.rglob("*.safetensors"))}


def pretrain_options(material: Material, base: str, reward_model: str) -> Options:
    return {
        "data": material.text, "eval_data": material.eval_text, "tokenizer": material.tokenizer_path, "model": "tiny",
        "n_positions": 32, "d_model": 32, "residual_dropout": 0.1, "batch_ramp_start": 32, "batch_ramp_tokens": 500,
        "learning_rate": 1e-2,
    }


def sft_options(material: Material, base: str, reward_model: str) -> Options:
    return {
        "init": base, "data": material.demonstrations, "eval_data": material.eval_demonstrations,
        "pretrain_data": material.text, "pretrain_mix": 0.2, "residual_dropout": 0.1, "learning_rate": 1e-2,
        "select_by_reward": reward_model, "selection_max_new_tokens": 4, "train_batch_size": 8,
        "per_device_train_batch_size": 3,
    }


def reward_options(material: Material, base: str, reward_model: str) -> Options:
    return {
        "init": base, "data": material.comparisons, "eval_data": material.eval_comparisons, "residual_dropout": 0.1,
        "demonstrations": material.eval_demonstrations, "learning_rate": 1e-2, "train_batch_size": 4,
        "per_device_train_batch_size": 3,
    }


STAGES: dict[str, Callable[[Material, str, str], Options]] = {
    "pretrain": pretrain_options, "sft": sft_options, "reward": reward_options,
}


# float32 masters are resumed by the same code in every stage, so bf16 is tried in one.
@pytest.mark.parametrize(("stage", "dtype"), [*((stage, "fp32") for stage in STAGES), ("sft", "bf16")])
def test_resumed_equals_straight(
    stage: str, dtype: str, material: Material, base: str, reward_model: str, tmp_path: Path
) -> None:
    options = STAGES[stage](material, base, reward_model) | {
        "max_steps": 6, "save_steps": 3, "eval_steps": 2, "save_total_limit": None, "progress": False, "dtype": dtype,
    }
    straight = train(stage, **options, output_dir=str(tmp_path / "straight"))
    resumed_dir = tmp_path / "resumed"
    resumed_dir.mkdir()
    shutil.copytree(tmp_path / "straight" / "checkpoint-000003", resumed_dir / "checkpoint-000003")
    for best in (tmp_path / "straight").glob("best-*"):
        # What the first half kept of its best; the second half may replace it.
        if int(best.name.removeprefix("best-")) <= 3:
            shutil.copytree(best, resumed_dir / best.name)
    resumed = train(stage, **options, output_dir=str(resumed_dir), resume_from_checkpoint="latest")
    expected = weights_of(tmp_path / "straight" / "checkpoint-000006")
    assert "trainer/optimizer-model.safetensors" in expected
    assert weights_of(resumed_dir / "checkpoint-000006") == expected
    assert resumed.metrics == straight.metrics
    assert resumed.checkpoint.name == straight.checkpoint.name
    assert weights_of(resumed.checkpoint) == weights_of(straight.checkpoint)


SCRIPT = """
    import sys, torch
    torch.set_num_threads(1)
    from instructgpt_fast.train import train
    data, init, folder, how = sys.argv[1:]
    options = dict(init=init, data=data, max_steps=200, save_steps=1000, logging_steps=1, learning_rate=1e-3,
                   residual_dropout=0.1, train_batch_size=4, per_device_train_batch_size=4)
    if how == "start":
        train("sft", output_dir=folder, **options)
    else:
        a = train("sft", output_dir=folder, resume_from_checkpoint="latest", **options)
        b = train("sft", output_dir=folder + "-straight", **options)
        print(a.checkpoint, b.checkpoint)
"""


def test_interrupted_process_continues(material: Material, base: str, tmp_path: Path) -> None:
    """Ctrl-C keeps a checkpoint of the step it came in; another process goes on as if nothing had been."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), material.demonstrations, base, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    process = subprocess.Popen([*command, "start"], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(read_metrics(folder)) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in errors
    assert "interrupted: saving a checkpoint" in errors
    (saved,) = folder.glob("checkpoint-*")
    stopped = int(saved.name.removeprefix("checkpoint-"))
    assert 5 <= stopped < 200, "the interrupt came in the middle of the run"
    finished = subprocess.run([*command, "resume"], env=environment, capture_output=True, text=True, check=True)
    resumed, straight = map(Path, finished.stdout.split()[-2:])
    assert weights_of(resumed) == weights_of(straight)
    assert [record["step"] for record in read_metrics(folder)] == list(range(1, 201)), "no step is logged twice"


def test_finished_run_is_not_run_again(material: Material, base: str, run_dir: str) -> None:
    options = {"init": base, "data": material.demonstrations, "max_steps": 2, "output_dir": run_dir, "progress": False}
    first = train("sft", **options)
    changed = (first.checkpoint / "model.safetensors").stat().st_mtime_ns
    again = train("sft", **options, resume_from_checkpoint="latest")
    assert again == first
    assert (first.checkpoint / "model.safetensors").stat().st_mtime_ns == changed


def test_other_data_cannot_be_resumed_on(material: Material, base: str, run_dir: str) -> None:
    options = {"init": base, "output_dir": run_dir, "progress": False}
    train("sft", **options, data=material.demonstrations, max_steps=2)
    with pytest.raises(DataError, match="resumes only on the data and seed it began with"):
        train("sft", **options, data=material.eval_demonstrations, max_steps=3, resume_from_checkpoint="latest")
