"""Supervised fine-tuning: what counts, what sees what, the pretraining mix, the choice of the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.data import pack_encoded
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.evaluate import score_sequences
from instructgpt_fast.generate import SamplingConfig, sample
from instructgpt_fast.model import GPT, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train import SftConfig, TrainResult, train
from instructgpt_fast.train.inputs import with_dropout
from instructgpt_fast.train.language_model import count_targets, evaluate_lm, lm_loss
from instructgpt_fast.train.loop import Run
from instructgpt_fast.train.metrics import read_metrics
from instructgpt_fast.train.sft import PretrainMix, micro_batches

from .material import CONTEXT, Material, write_jsonl


def loss_of(model: GPT, batch: dict[str, torch.Tensor]) -> float:
    with torch.no_grad():
        return float(lm_loss(model, batch))


def sft(material: Material, base: str, run_dir: str, **options: Any) -> TrainResult:
    given = {
        "init": base, "data": material.demonstrations, "output_dir": run_dir, "max_steps": 4, "progress": False,
        "train_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1,
    }
    return train("sft", **(given | options))


def test_only_responses_and_their_eos_count(material: Material) -> None:
    example = material.tokenizer.encode_example("Name two.", "cat dog", "dialogue")
    batch = pack_encoded([example, example])
    response = [*material.tokenizer.encode("cat dog"), material.tokenizer.eos_id]
    assert count_targets(batch) == 2 * len(response)
    model = material.gpt().eval()
    logprobs = model.logits(model(batch["tokens"][None, : len(example.tokens)])).log_softmax(-1)[0].detach()
    start = len(example.tokens) - len(response)
    expected = -sum(float(logprobs[start - 1 + i, token]) for i, token in enumerate(response))
    assert loss_of(model, batch) == pytest.approx(2 * expected, rel=1e-5)


def test_examples_do_not_see_each_other(material: Material) -> None:
    """Packed together the loss is the sum of the losses alone, and changing one example leaves the others' part."""
    model = material.gpt().eval()
    data = [material.tokenizer.encode_example(f"Say {i}.", "owl hen " * (i + 1), "dialogue") for i in range(4)]
    alone = [loss_of(model, pack_encoded([example])) for example in data]
    assert loss_of(model, pack_encoded(data)) == pytest.approx(sum(alone), rel=1e-5)
    other = material.tokenizer.encode_example("Something else!", "fox", "dialogue")
    changed = loss_of(model, pack_encoded([other, *data[1:]]))
    assert changed - loss_of(model, pack_encoded([other])) == pytest.approx(sum(alone[1:]), rel=1e-5)


def test_learns_in_dialogue_format(material: Material, base: str, run_dir: str) -> None:
    result = sft(material, base, run_dir, max_steps=60, residual_dropout=0.0)
    records = read_metrics(run_dir)
    assert records[-1]["loss"] < 0.4 * records[0]["loss"]
    assert records[-1]["epoch"] == pytest.approx(60 * 8 / 34)
    assert records[0]["learning_rate"] == 1e-2, "no warm-up"
    # Step 60 of 60: the cosine is one step before its end at 10 %.
    assert 1e-3 < records[-1]["learning_rate"] < 1.01e-3
    loaded = load_model(result.checkpoint)
    assert (loaded.prompt_format, loaded.stage) == ("dialogue", "sft")


def test_epochs_end_with_the_data(material: Material, base: str, run_dir: str) -> None:
    """34 examples twice in batches of 8: nine steps, the last of four examples."""
    sft(material, base, run_dir, max_steps=None, num_train_epochs=2.0)
    records = read_metrics(run_dir)
    assert [record["epoch"] for record in records][-2:] == [64 / 34, 2.0]
    assert len(records) == 9


def test_dropout_is_on_in_training_and_off_elsewhere(material: Material, base: str, run_dir: str) -> None:
    result = sft(material, base, run_dir, residual_dropout=0.5)
    model = load_model(result.checkpoint).model
    assert isinstance(model, GPT)
    assert model.config.residual_dropout == 0.5
    tokens = {"tokens": torch.arange(12)[None]}
    assert loss_of(model.train(), tokens) != loss_of(model, tokens)
    once = evaluate_lm(model, [tokens])
    assert evaluate_lm(model, [tokens]) == once
    assert model.training, "the mode comes back"
    assert with_dropout(model, 0.5) is model
    plain = with_dropout(model, 0.0).train()
    assert loss_of(plain, tokens) == pytest.approx(once["eval_loss"] * once["eval_tokens"], rel=1e-6)


def test_the_mix_weighs_both_losses(material: Material, base: str, run_dir: str) -> None:
    """loss = 0.75 * mean over response tokens + 0.25 * mean over pretraining tokens, 4 windows beside 12 examples."""
    config = SftConfig(
        init=base, data=material.demonstrations, output_dir=run_dir, pretrain_data=material.text, pretrain_mix=0.25,
        train_batch_size=12, per_device_train_batch_size=5, pretrain_length=24, progress=False,
    )
    run = Run("sft", config)
    model = material.gpt().eval()
    mix = PretrainMix.of(run, config, model, material.tokenizer)
    examples = [material.tokenizer.encode_example("Say it.", "pig " * (1 + i), "dialogue") for i in range(12)]
    windows = mix.micro_batches(model, 1)
    parts = micro_batches(model, examples, config, run) + windows
    assert [part.tensors["tokens"].shape for part in windows] == [(4, 24)]
    total = sum(float(part.loss(part.tensors).detach()) * part.weight for part in parts)
    responses = evaluate_lm(model, [pack_encoded(examples)])["eval_loss"]
    text = evaluate_lm(model, [windows[0].tensors])["eval_loss"]
    assert total == pytest.approx(0.75 * responses + 0.25 * text, rel=1e-5)
    later = mix.micro_batches(model, 2)[0].tensors["tokens"]
    assert not torch.equal(later, windows[0].tensors["tokens"]), "the next step has other windows"


def test_chosen_by_loss(material: Material, base: str, run_dir: str, tmp_path: Path) -> None:
    """Two examples are soon learned by heart: the result is the model before that."""
    few = write_jsonl(tmp_path / "few.jsonl", [{"prompt": "Name a and b.", "response": w} for w in ("cow", "pig")])
    result = sft(
        material, base, run_dir, data=few, eval_data=material.eval_demonstrations, eval_steps=2, max_steps=20,
    )
    losses = {r["step"]: r["eval_loss"] for r in read_metrics(run_dir) if "eval_loss" in r}
    best = min(losses, key=losses.__getitem__)
    assert best < 20, "the test needs a run that gets worse"
    assert result.checkpoint.name == f"best-{best:06d}"
    assert result.metrics["eval_loss"] == losses[best]
    assert result.metrics["best_step"] == best
    assert sorted(path.name for path in Path(run_dir).glob("best-*")) == [result.checkpoint.name]
    assert load_model(run_dir).path == result.checkpoint, "the run's directory stands for its result"


def test_chosen_by_reward(material: Material, base: str, reward_model: str, run_dir: str) -> None:
    result = sft(
        material, base, run_dir, eval_data=material.eval_demonstrations, eval_steps=2, max_steps=8, learning_rate=5e-2,
        select_by_reward=reward_model, selection_prompts=3, selection_max_new_tokens=6,
    )
    rewards = {r["step"]: r["eval_reward"] for r in read_metrics(run_dir) if "eval_reward" in r}
    assert sorted(rewards) == [2, 4, 6, 8]
    best = max(rewards, key=rewards.__getitem__)
    assert result.checkpoint.name == f"best-{best:06d}"
    # The score can be had again from the chosen model: same prompts, same seeds, same reward model.
    policy, judge = load_model(result.checkpoint), load_model(reward_model)
    assert isinstance(policy.model, GPT)
    assert isinstance(judge.model, ScalarModel)
    rows = [json.loads(line) for line in Path(material.eval_demonstrations).read_text().splitlines()[:3]]
    prompts = [policy.tokenizer.encode_prompt(row["prompt"], "dialogue") for row in rows]
    answers = sample(policy.model, prompts, SamplingConfig(max_new_tokens=6), eos_id=policy.tokenizer.eos_id)
    sequences = [prompt + answer.tokens for prompt, answer in zip(prompts, answers, strict=True)]
    assert float(score_sequences(judge.model, sequences).mean()) == pytest.approx(rewards[best], abs=1e-5)


def test_a_judge_of_another_vocabulary(material: Material, base: str, run_dir: str) -> None:
    other = Tokenizer.train(["another text, another vocabulary"], 263)
    model = ScalarModel.from_gpt(material.gpt(vocab_size=other.vocab_size))
    path = material.save("other-reward", model, tokenizer=other)
    with pytest.raises(CheckpointError) as raised:
        sft(material, base, run_dir, eval_data=material.eval_demonstrations, select_by_reward=path)
    assert base in str(raised.value)
    assert path in str(raised.value)


def test_a_judge_that_is_no_reward_model(material: Material, base: str, run_dir: str) -> None:
    with pytest.raises(CheckpointError, match="must hold a reward model, got a language model"):
        sft(material, base, run_dir, eval_data=material.eval_demonstrations, select_by_reward=base)


def test_answers_must_fit(material: Material, base: str, reward_model: str, run_dir: str) -> None:
    with pytest.raises(ConfigError, match=f"must leave the answer room in {CONTEXT} tokens"):
        sft(material, base, run_dir, eval_data=material.eval_demonstrations, select_by_reward=reward_model,
            selection_max_new_tokens=CONTEXT)


def test_long_examples_stop_or_are_left_out(
    material: Material, base: str, run_dir: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [{"prompt": "Say.", "response": "cat"}, {"prompt": "Say " + "it " * CONTEXT, "response": "dog"}] * 4
    data = write_jsonl(tmp_path / "long.jsonl", rows)
    with pytest.raises(DataError, match=r"long\.jsonl:2: a prompt must have at most max_prompt_tokens"):
        sft(material, base, run_dir, data=data)
    sft(material, base, run_dir, data=data, on_long="filter", progress=True)
    assert "left out 4 too long" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=f"at most the model's context of {CONTEXT} tokens, got max_tokens=64"):
        sft(material, base, run_dir, data=data, max_tokens=64, overwrite_output_dir=True)


@pytest.mark.parametrize(("content", "words"), [
    (b'{"prompt": "a", "response": "b"}\n{"prompt": "a"\n', r"d\.jsonl:2: .*must be one JSON object"),
    (b'{"prompt": "a", "response": "\xff"}\n', r"d\.jsonl:1: .*UTF-8"),
    (b"", r"d\.jsonl: .*must hold at least one demonstration"),
    (b'{"prompt": "a"}\n', r"d\.jsonl:1: .*'response' or 'completion'"),
])
def test_bad_demonstrations(
    material: Material, base: str, run_dir: str, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=words):
        sft(material, base, run_dir, data=str(tmp_path / "d.jsonl"))


def test_no_such_checkpoint(material: Material, run_dir: str) -> None:
    with pytest.raises(CheckpointError, match="must be a checkpoint or a run directory, got nothing"):
        sft(material, "no/such/place", run_dir)


def test_a_best_model_left_behind_is_no_result(
    material: Material, base: str, run_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumed from a checkpoint in another directory, the run has only its own models to choose from."""
    few = write_jsonl(tmp_path / "few.jsonl", [{"prompt": "Name a and b.", "response": w} for w in ("cow", "pig")])
    options = {"data": few, "eval_data": material.eval_demonstrations, "eval_steps": 2}
    first = sft(material, base, run_dir, **options, max_steps=20)
    assert first.metrics["best_step"] < 20
    last = str(Path(run_dir) / "checkpoint-000020")
    second = sft(
        material, base, run_dir + "-on", **options, max_steps=22, resume_from_checkpoint=last, progress=True,
    )
    assert "choosing anew" in capsys.readouterr().err
    assert second.checkpoint == Path(run_dir + "-on") / "best-000022"
    assert second.checkpoint.is_dir()
