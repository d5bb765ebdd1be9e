"""Reward modelling: pairs, ties, grouped and single pairs, the zero of the scale, accuracy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.data import Limits
from instructgpt_fast.errors import CheckpointError, DataError, TrainingError
from instructgpt_fast.evaluate import (
    Accuracy,
    RankedAnswers,
    RewardAccuracy,
    calibration,
    read_demonstrations,
    score_sequences,
)
from instructgpt_fast.model import GPT, ScalarModel
from instructgpt_fast.train import TrainResult, train
from instructgpt_fast.train import reward as stage
from instructgpt_fast.train.calibration import keep_calibration
from instructgpt_fast.train.metrics import read_metrics
from instructgpt_fast.train.reward import centre_scores, single_pairs

from .material import CONTEXT, Material, write_jsonl


def reward(material: Material, base: str, run_dir: str, **options: Any) -> TrainResult:
    given = {
        "init": base, "data": material.comparisons, "output_dir": run_dir, "max_steps": 4, "progress": False,
        "train_batch_size": 6, "learning_rate": 1e-2, "logging_steps": 1,
    }
    return train("reward", **(given | options))


def test_learns_the_ranking(material: Material, base: str, run_dir: str) -> None:
    result = reward(material, base, run_dir, max_steps=40, eval_data=material.eval_comparisons, eval_steps=40)
    records = read_metrics(run_dir)
    assert records[0]["loss"] == pytest.approx(0.693, abs=0.5), "near log 2 for an untrained head"
    assert records[-1]["eval_accuracy"] > 0.9
    assert records[-1]["eval_accuracy_k4"] == records[-1]["eval_accuracy"]
    assert records[-1]["eval_pairs"] == 6 * 5, "six prompts, and of the C(4, 2) pairs of each one is tied"
    assert result.metrics["eval_loss"] < 0.4
    (kept,) = json.loads((Path(run_dir) / "calibration.json").read_text())["evaluations"]
    assert (kept["step"], kept["accuracy"], kept["pairs"]) == (40, records[-1]["eval_accuracy"], 30)
    assert sum(part["pairs"] for part in kept["bins"]) == 30
    assert kept["expected_calibration_error"] == records[-1]["eval_calibration_error"]
    loaded = load_model(result.checkpoint)
    assert isinstance(loaded.model, ScalarModel)
    assert (loaded.prompt_format, loaded.stage) == ("dialogue", "reward")


def test_calibration_is_kept_once_a_step(tmp_path: Path) -> None:
    """A resumed run evaluates the steps after its checkpoint again: they take the place of what was there."""
    data = [torch.tensor([1.0, -1.0]), torch.tensor([2.0])]
    share = Accuracy(0.5, math.nan, 3, 1)
    for step in (10, 20, 30, 20):
        keep_calibration(tmp_path, step, RewardAccuracy(share, {2: share}, 0.0, 0.0, 0.7, calibration(data)))
    path = tmp_path / "calibration.json"
    kept = json.loads(path.read_text())["evaluations"]
    assert [evaluation["step"] for evaluation in kept] == [10, 20]
    assert kept[0]["by_k"] == [{"k": 2, "accuracy": 0.5, "half_width": None, "pairs": 3, "prompts": 1}]
    path.write_text("{")
    with pytest.raises(CheckpointError, match="delete the file"):
        keep_calibration(tmp_path, 40, RewardAccuracy(share, {}, 0.0, 0.0, 0.7, calibration(data)))


def test_one_epoch_by_default(material: Material, base: str, run_dir: str) -> None:
    """18 prompts in batches of 6 are 3 steps."""
    assert reward(material, base, run_dir, max_steps=None).checkpoint.name == "checkpoint-000003"


def test_single_pairs_are_all_ordered_pairs_better_first() -> None:
    item = RankedAnswers([[1], [2], [3], [4]], [2, 1, 3, 3])
    pairs = single_pairs([item])
    found = sorted((pair.sequences[0][0], pair.sequences[1][0]) for pair in pairs)
    assert found == [(1, 3), (1, 4), (2, 1), (2, 3), (2, 4)]
    assert all(pair.ranks == [1, 2] for pair in pairs)


def test_a_prompt_is_one_batch_element_with_k_forwards(
    material: Material, base: str, run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six prompts of K = 4 pass 24 answers through the model; as single pairs, six pairs pass 12."""
    passed: list[tuple[int, int]] = []
    loss = stage.comparison_loss

    def counting(model: Any, batch: Any, seen: Any) -> torch.Tensor:
        passed.append((len(batch["cu_seqlens"]) - 1, len(batch["group_offsets"]) - 1))
        return loss(model, batch, seen)

    monkeypatch.setattr(stage, "comparison_loss", counting)
    reward(material, base, run_dir, max_steps=1, per_device_train_batch_size=6)
    reward(material, base, run_dir, max_steps=1, per_device_train_batch_size=6, grouped=False,
           overwrite_output_dir=True)
    assert passed == [(24, 6), (12, 6)]


def test_demonstrations_score_zero_afterwards(material: Material, base: str, run_dir: str) -> None:
    plain = reward(material, base, run_dir, max_steps=3)
    centred = reward(material, base, run_dir + "-centred", max_steps=3, demonstrations=material.eval_demonstrations)
    loaded = load_model(centred.checkpoint)
    examples = read_demonstrations(
        material.eval_demonstrations, loaded.tokenizer, "dialogue", Limits(CONTEXT, CONTEXT, CONTEXT), "error", print,
    )
    sequences = [example.tokens for example in examples]
    assert isinstance(loaded.model, ScalarModel)
    before = load_model(plain.checkpoint).model
    assert isinstance(before, ScalarModel)
    scores, raw = score_sequences(loaded.model, sequences), score_sequences(before, sequences)
    assert abs(float(raw.mean())) > 0.05, "the test needs something to shift"
    # A mean of float32 scores of size 1.
    assert abs(float(scores.mean())) < 1e-6
    assert float(loaded.model.bias_shift) == pytest.approx(-float(raw.mean()), rel=1e-5)
    assert read_metrics(run_dir + "-centred")[-1]["bias_shift"] == pytest.approx(float(loaded.model.bias_shift))
    assert torch.equal(loaded.model.head.weight, before.head.weight), "nothing else changes"


def test_scores_that_cannot_be_centred_are_told(material: Material) -> None:
    model = ScalarModel.from_gpt(material.gpt())
    with torch.no_grad():
        model.head.bias.fill_(float("inf"))
    with pytest.raises(TrainingError, match="must score 0 on average after the shift, got nan"):
        centre_scores(model, [[1, 2], [3]], 2)


def test_a_fresh_head_is_drawn_as_in_the_paper(material: Material) -> None:
    """N(0, 1 / sqrt(d + 1)), bias 0."""
    torch.manual_seed(0)
    draws = torch.cat([ScalarModel.from_gpt(material.gpt(seed)).head.weight.detach().flatten() for seed in range(200)])
    # 6,400 draws: the standard deviation is known to 1 %, three of which are allowed.
    assert float(draws.std()) == pytest.approx(1 / 33**0.5, rel=0.03)
    assert ScalarModel.from_gpt(material.gpt()).head.bias.tolist() == [0.0]


def test_continues_a_reward_model(material: Material, reward_model: str, run_dir: str) -> None:
    result = reward(material, reward_model, run_dir, max_steps=1, learning_rate=1e-9)
    before, after = load_model(reward_model).model, load_model(result.checkpoint).model
    assert isinstance(before, ScalarModel)
    assert isinstance(after, ScalarModel)
    assert torch.allclose(before.head.weight, after.head.weight, atol=1e-7), "the head is kept, not drawn anew"


def test_the_value_of_init_is_untouched(material: Material, base: str, run_dir: str) -> None:
    before = Path(base, "model.safetensors").read_bytes()
    reward(material, base, run_dir)
    assert Path(base, "model.safetensors").read_bytes() == before
    assert isinstance(load_model(base).model, GPT)


@pytest.mark.parametrize(("row", "words"), [
    ({"prompt": "p", "completions": ["a", "b"], "ranks": [1]}, r"c\.jsonl:1: .*one rank for each of the 2 completions"),
    ({"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1]}, "must have two answers of different rank"),
    ({"prompt": "p", "completions": ["a " * 60, "b"], "ranks": [1, 2]}, r"c\.jsonl:1: a response with its end must"),
])
def test_bad_comparisons(
    material: Material, base: str, run_dir: str, tmp_path: Path, row: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        reward(material, base, run_dir, data=write_jsonl(tmp_path / "c.jsonl", [row]))


def test_tied_prompts_are_counted(
    material: Material, base: str, run_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "p", "completions": ["a", "b", "c"], "ranks": ranks} for ranks in ([1, 2, 2], [3, 3, 3])] * 3
    reward(material, base, run_dir, data=write_jsonl(tmp_path / "ties.jsonl", rows), progress=True)
    assert "left out 3 with all answers tied" in capsys.readouterr().err
