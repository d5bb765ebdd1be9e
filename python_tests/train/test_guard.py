"""A loss that is not finite stops the run, names the first bad tensor, keeps the batch and the last good checkpoint."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from instructgpt_fast.checkpoint import checkpoints_of, load_model, resolve
from instructgpt_fast.errors import TrainingError
from instructgpt_fast.train import guard, train
from instructgpt_fast.train import sft as sft_stage
from instructgpt_fast.train.guard import first_nonfinite
from instructgpt_fast.train.language_model import lm_loss
from instructgpt_fast.train.loss_scale import INITIAL, LossScale
from instructgpt_fast.train.step import Updater

from .material import Material


def test_a_weight_is_named_first(material: Material) -> None:
    model = material.gpt()
    with torch.no_grad():
        model.h[1].mlp.c_fc.weight[3, 4] = float("nan")
        model.h[1].ln_2.bias.grad = torch.full_like(model.h[1].ln_2.bias, float("inf"))
    found = first_nonfinite({"model": model}, None)
    assert found == "parameter model.h.1.mlp.c_fc.weight (1 of 4096 values)"


def test_an_activation_is_named_where_it_first_appears(material: Material) -> None:
    model = material.gpt()
    with torch.no_grad():
        # Finite weights whose product is not: 1e30 * 1e30 overflows float32 in the second layer's feed-forward part.
        model.h[1].ln_2.weight.fill_(1e30)
        model.h[1].mlp.c_fc.weight.fill_(1e30)
    tokens = torch.tensor([[1, 2, 3, 4]])
    found = first_nonfinite({"model": model}, lambda: lm_loss(model, {"tokens": tokens}))
    assert found is not None
    assert found.startswith("activation model.h.1.mlp")


def test_a_gradient_is_named_when_all_else_is_finite(material: Material) -> None:
    model = material.gpt()
    assert first_nonfinite({"model": model}, None) is None
    model.wpe.weight.grad = torch.zeros_like(model.wpe.weight)
    model.wpe.weight.grad[5, 0] = float("-inf")
    assert first_nonfinite({"model": model}, None) == "gradient of model.wpe.weight (1 of 1536 values)"


@pytest.fixture
def broken_at_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """After three good steps one weight becomes NaN, as a faulty kernel or a broken machine would leave it."""
    step = Updater.step

    def breaking(self: Updater, number: int, *rest: Any) -> Any:
        if number == 4:
            with torch.no_grad():
                self.model.h[0].attn.c_attn.bias[0] = float("nan")
        return step(self, number, *rest)

    monkeypatch.setattr(Updater, "step", breaking)


@pytest.mark.usefixtures("broken_at_four")
def test_the_run_stops_and_nothing_is_lost(material: Material, base: str, run_dir: str) -> None:
    with pytest.raises(TrainingError) as raised:
        train(
            "sft", init=base, data=material.demonstrations, output_dir=run_dir, max_steps=9, save_steps=2,
            train_batch_size=4, per_device_train_batch_size=2, progress=False,
        )
    message = str(raised.value)
    assert "got nan at step 4" in message
    assert "parameter model.h.0.attn.c_attn.bias (1 of 96 values)" in message
    assert "checkpoint-000002" in message
    kept = Path(run_dir) / "nonfinite-000004"
    assert str(kept) in message
    batch = load_file(kept / "batch.safetensors")
    assert set(batch) == {"tokens", "loss_mask", "cu_seqlens"}
    assert len(batch["cu_seqlens"]) == 3, "the micro-batch of two examples whose loss was not finite"
    report = json.loads((kept / "report.json").read_text())
    assert report["step"] == 4
    assert len(report["examples"]) == 4
    assert report["data"] == material.demonstrations
    assert resolve(run_dir).name == "checkpoint-000002"
    model = load_model(run_dir).model
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def test_broken_weights_push_out_no_good_checkpoint(
    material: Material, base: str, run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update may break the weights after a finite loss: they are not saved as if they were good."""
    step = Updater.step

    def breaking(self: Updater, number: int, *rest: Any) -> Any:
        outcome = step(self, number, *rest)
        if number == 2:
            with torch.no_grad():
                self.model.ln_f.bias[0] = float("inf")
        return outcome

    monkeypatch.setattr(Updater, "step", breaking)
    told = r"finite, got parameter model\.ln_f\.bias \(1 of 32 values\) after step 2\..*is checkpoint-000001"
    with pytest.raises(TrainingError, match=told):
        train(
            "sft", init=base, data=material.demonstrations, output_dir=run_dir, max_steps=3, save_steps=1,
            save_total_limit=1, progress=False,
        )
    assert [path.name for path in checkpoints_of(Path(run_dir))] == ["checkpoint-000001"]


def test_a_full_disk_does_not_hide_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(guard, "save_tensors", full)
    with pytest.raises(TrainingError, match=r"loss must be finite, got nan at step 3\..*not be kept.*disk is full"):
        guard.stop_unless_finite(tmp_path, 3, {"loss": float("nan")}, modules={}, batch={"tokens": torch.zeros(2)})


def test_a_gradient_that_is_not_finite_changes_nothing(
    material: Material, base: str, run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is finite and its gradient is not: the weights stay as they were before the step."""
    before: dict[str, torch.Tensor] = {}
    models: list[Any] = []

    def overflowing(model: Any, tensors: Any) -> torch.Tensor:
        if not models:
            models.append(model)
            before.update({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
        # sqrt has an infinite slope at 0, where its value is finite.
        return lm_loss(model, tensors) + (model.ln_f.bias - model.ln_f.bias.detach()).abs().sum().sqrt()

    monkeypatch.setattr(sft_stage, "lm_loss", overflowing)
    with pytest.raises(TrainingError, match=r"grad_norm must be finite.*gradient of model\.ln_f\.bias \(32 of 32"):
        train("sft", init=base, data=material.demonstrations, output_dir=run_dir, max_steps=2, progress=False)
    assert all(torch.equal(parameter, before[name]) for name, parameter in models[0].named_parameters())


def test_loss_scale_falls_and_rises() -> None:
    scale = LossScale.of_dtype("fp16")
    assert scale.scale == INITIAL
    scale.update(applied=False)
    assert scale.scale == INITIAL / 2
    for _ in range(1999):
        scale.update(applied=True)
    assert scale.scale == INITIAL / 2
    scale.update(applied=True)
    assert scale.scale == INITIAL
    other = LossScale.of_dtype("fp16")
    other.restore(scale.state())
    assert other == scale


def test_loss_scale_gives_up() -> None:
    scale = LossScale.of_dtype("fp16")
    with pytest.raises(TrainingError, match="gradients must fit fp16 at some loss scale"):
        for _ in range(64):
            scale.update(applied=False)


def test_no_scale_outside_fp16() -> None:
    for dtype in ("fp32", "bf16"):
        scale = LossScale.of_dtype(dtype)
        scale.update(applied=False)
        assert scale == LossScale(scale=1.0, clean_steps=0, dynamic=False)
