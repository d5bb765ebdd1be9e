"""The run: its directory, what it refuses, what it keeps, what it writes."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from instructgpt_fast import device as device_module
from instructgpt_fast.config import from_options, read_toml, to_dict
from instructgpt_fast.device import choose_device, torch_dtype
from instructgpt_fast.errors import BackendError, CheckpointError, ConfigError
from instructgpt_fast.train import SftConfig, TrainResult, train
from instructgpt_fast.train.loop import check_space
from instructgpt_fast.train.metrics import MetricsLog, read_metrics

from .material import Material


def short(material: Material, base: str, run_dir: str, **more: Any) -> TrainResult:
    options = {
        "init": base, "data": material.demonstrations, "output_dir": run_dir, "max_steps": 2, "progress": False,
        "train_batch_size": 4, "residual_dropout": 0.0,
    }
    return train("sft", **(options | more))


def test_a_stage_name_and_an_options_object_are_the_same_call(material: Material, base: str, tmp_path: Path) -> None:
    by_name = short(material, base, str(tmp_path / "a"))
    config = SftConfig(
        init=base, data=material.demonstrations, output_dir=str(tmp_path / "b"), max_steps=2, progress=False,
        train_batch_size=4, residual_dropout=0.0,
    )
    by_object = train(config)
    changed = train(config, output_dir=str(tmp_path / "c"))
    weights = {r.checkpoint.joinpath("model.safetensors").read_bytes() for r in (by_name, by_object, changed)}
    assert len(weights) == 1
    assert by_name.metrics == by_object.metrics
    with pytest.raises(ConfigError, match="needs a stage name or the options of a stage, got dict"):
        train({"init": base})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"got 'stf', did you mean 'sft'\?"):
        train("stf")


def test_the_resolved_options_make_the_same_config(material: Material, base: str, run_dir: str) -> None:
    given = {"preset": "instructgpt-1.3b", "dtype": "fp32", "max_tokens": None, "max_grad_norm": None}
    result = short(material, base, run_dir, **given)
    resolved = from_options(SftConfig, read_toml(result.run_dir / "resolved.toml"))
    assert resolved.learning_rate == 9.65e-6
    assert resolved.max_grad_norm is None
    assert resolved.max_prompt_tokens == 1024
    assert to_dict(resolved)["train_batch_size"] == 4


def test_a_directory_with_a_run_is_not_overwritten(material: Material, base: str, run_dir: str) -> None:
    first = short(material, base, run_dir)
    with pytest.raises(ConfigError, match="one that holds checkpoints; pass resume_from_checkpoint='latest'"):
        short(material, base, run_dir)
    assert first.checkpoint.is_dir()
    again = short(material, base, run_dir, overwrite_output_dir=True, max_steps=1)
    assert [path.name for path in Path(run_dir).glob("checkpoint-*")] == ["checkpoint-000001"]
    assert [record["step"] for record in read_metrics(again.run_dir)] == [1]


def test_only_what_a_run_left_is_removed(material: Material, base: str, run_dir: str) -> None:
    Path(run_dir).mkdir()
    mine = Path(run_dir) / "best-friends"
    mine.mkdir()
    short(material, base, run_dir)
    assert mine.is_dir(), "the directory was no run before"


def test_latest_starts_where_there_is_nothing(material: Material, base: str, run_dir: str) -> None:
    assert short(material, base, run_dir, resume_from_checkpoint="latest").checkpoint.name == "checkpoint-000002"


def test_the_limit_keeps_the_newest(material: Material, base: str, run_dir: str) -> None:
    short(material, base, run_dir, max_steps=5, save_steps=1, save_total_limit=2)
    kept = sorted(path.name for path in Path(run_dir).glob("checkpoint-*"))
    assert kept == ["checkpoint-000004", "checkpoint-000005"]


def test_a_file_in_the_way(material: Material, base: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="a part of the path is a file; choose another path"):
        short(material, base, str(tmp_path / "file" / "run"))


def test_a_full_disk_is_noticed_before_any_step(
    material: Material, base: str, run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40 - 2**20, 2**20))
    with pytest.raises(CheckpointError, match="must have 16 MiB free for a checkpoint, got 1 MiB; free some space"):
        short(material, base, run_dir)
    assert read_metrics(run_dir) == []


def test_space_for_a_large_model(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path, 0)
    with pytest.raises(CheckpointError, match="free some space or choose another disk"):
        check_space(tmp_path, 2 * free + 2**30)


@pytest.mark.parametrize(("name", "words"), [
    ("cuda", "'cuda' cannot be used: torch .* sees no GPU; use device='cpu'"),
    ("cuda:7", "instructgpt-fast doctor"),
    ("mps", "must be auto, cpu, cuda or cuda:N, got 'mps'"),
    ("gpu", "must be auto, cpu, cuda or cuda:N, got 'gpu'"),
])
def test_devices_that_are_not_there(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=words):
        choose_device(name)
    assert choose_device("auto")[0] == torch.device("cpu")
    assert "sees no GPU" in choose_device("auto")[1]


def test_a_gpu_is_used_when_every_operator_has_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(device_module, "operators_on", lambda device: frozenset({"attention", "adamw"}))
    assert choose_device("cuda:1")[0] == torch.device("cuda:1")
    assert choose_device("auto")[0] == torch.device("cuda")
    with pytest.raises(BackendError, match=r"must be below cuda:2, got 2 GPU\(s\)"):
        choose_device("cuda:2")


def test_a_gpu_without_all_kernels_is_not_used_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    served = {"cpu": frozenset({"grad_norm", "adamw", "gae"}), "cuda": frozenset({"adamw"})}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_module, "operators_on", served.__getitem__)
    device, reason = choose_device("auto")
    assert device == torch.device("cpu")
    assert reason == "auto: 2 operators have no CUDA kernel in this build, among them gae"
    with pytest.raises(BackendError, match="2 operators have no CUDA kernel"):
        choose_device("cuda")


def test_a_gpu_is_used_where_it_has_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device_module, "operators_on", lambda device_type: frozenset({"attention", "adamw"}))
    for name in ("auto", "cuda"):
        device, reason = choose_device(name)
        assert device == torch.device("cuda")
        assert reason.endswith("every operator has a kernel for it")


def test_dtypes() -> None:
    assert torch_dtype("bf16") is torch.bfloat16
    with pytest.raises(BackendError, match="must be one of fp32, bf16, fp16, got 'fp64'"):
        torch_dtype("fp64")


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_learns(material: Material, base: str, run_dir: str, dtype: str) -> None:
    short(material, base, run_dir, dtype=dtype, max_steps=30, learning_rate=1e-2, logging_steps=1)
    losses = [record["loss"] for record in read_metrics(run_dir)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("options", "words"), [
    ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ({"save_steps": 0}, "save_steps must be at least 1"),
    ({"max_steps": 0}, "max_steps must be at least 1 or none"),
    ({"num_train_epochs": 0.0}, "num_train_epochs must be above 0"),
    ({"adam_beta2": 1.0}, r"adam_beta2 must lie in \[0, 1\)"),
    ({"residual_dropout": 1.0}, r"residual_dropout must lie in \[0, 1\)"),
    ({"train_batch_size": 8, "gradient_accumulation_steps": 2}, "so gradient_accumulation_steps is left out, got"),
    ({"pretrain_mix": 0.1}, "pretrain_mix above 0 needs pretrain_data"),
    ({"select_by_reward": "rm"}, "select_by_reward needs eval_data"),
    ({"output_dir": ""}, "output_dir must not be empty"),
    ({"resume_from_checkpoint": "latest", "overwrite_output_dir": True}, "give one of them"),
    ({"dtype": "float32"}, "dtype must be one of 'fp32', 'bf16', 'fp16'"),
    ({"lerning_rate": 1e-3}, r"unknown option 'lerning_rate', did you mean 'learning_rate'\?"),
])
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SftConfig(**({"init": "i", "data": "d", "output_dir": "o"} | options))


def test_metrics_are_cut_back_to_the_step_resumed_from(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, "none")
    for step in (1, 2, 3):
        log.write(step, {"loss": 1.0 / step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3], "a torn last line is no record"
    log.keep_until(2)
    log.write(3, {"loss": float("inf")})
    assert read_metrics(tmp_path)[-2:] == [{"step": 2, "loss": 0.5}, {"step": 3, "loss": "inf"}]


def test_tensorboard_has_the_same_numbers(material: Material, base: str, run_dir: str) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    short(material, base, run_dir, report_to="tensorboard", logging_steps=1)
    events = EventAccumulator(str(Path(run_dir) / "tensorboard"))
    events.Reload()
    written = {record["step"]: record["loss"] for record in read_metrics(run_dir)}
    # TensorBoard stores float32.
    assert {event.step: event.value for event in events.Scalars("loss")} == pytest.approx(written, rel=1e-6)


def test_tensorboard_missing_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'instructgpt-fast\[tensorboard\]'"):
        MetricsLog(tmp_path, "tensorboard")


def test_changed_options_are_said(
    material: Material, base: str, run_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    short(material, base, run_dir)
    short(material, base, run_dir, resume_from_checkpoint="latest", max_steps=3, learning_rate=1e-4, progress=True)
    said = capsys.readouterr().err
    assert "option learning_rate changed since the checkpoint: 9.65e-06 -> 0.0001" in said
    assert "option progress" not in said
