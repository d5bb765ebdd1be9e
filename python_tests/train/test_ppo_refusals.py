"""What a PPO run refuses before or at its first update, and how it says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from instructgpt_fast.errors import CheckpointError, ConfigError, DataError, InstructGPTError, TrainingError
from instructgpt_fast.generate import SamplingConfig
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train import ppo, ppo_parts, ppo_rollout
from instructgpt_fast.train.inputs import load_start
from instructgpt_fast.train.ppo import PpoConfig

from .ppo_runs import World, save_policy, save_reward_model, share_of_small_letters, write_prompts


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("refusals"))


@pytest.mark.parametrize(("options", "rule"), [
    ({"batch_size": 8, "mini_batch_size": 3}, "mini_batch_size must divide batch_size"),
    ({"temperature": 0.0}, "temperature must be above 0"),
    ({"gamma": 1.5}, r"gamma must lie in \[0, 1\]"),
    ({"kl_coef": -0.1}, "kl_coef must be at least 0"),
    ({"kl_target": 0.0}, "kl_target must be above 0"),
    ({"ema_decay": 1.0}, r"ema_decay must lie in \(0, 1\)"),
    ({"cliprange": 0.0}, "cliprange must be above 0"),
    ({"total_episodes": 0}, "total_episodes must be at least 1"),
    ({"ptx_length": 1}, "ptx_length must be at least 2"),
    ({"klcoef": 0.1}, "did you mean 'kl_coef'"),
])
def test_options_out_of_range(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        PpoConfig(policy="a", prompts="b", output_dir="c", **options)


# Ouyang et al. 2022, arXiv:2203.02155, appendix C and C.4, typed in from the paper; the same for every size.
PRINTED = {
    "total_episodes": 256_000, "batch_size": 512, "mini_batch_size": 64, "num_ppo_epochs": 1, "kl_coef": 0.02,
    "cliprange": 0.2, "gamma": 1.0, "temperature": 1.0, "max_prompt_tokens": 1024, "max_response_tokens": 1024,
    "on_overlong": "skip", "ptx_coef": 27.8, "ptx_ratio": 8.0, "ema_decay": 0.992, "lr_warmup_iterations": 10,
    "lr_warmup_start": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.95, "dtype": "fp16",
}
PRINTED_VALUE_RATE = {"instructgpt-1.3b": 9e-6, "instructgpt-6b": 9e-6, "instructgpt-175b": 5e-6}
# Ziegler et al. 2019 and Stiennon et al. 2020 and their code.
ANCESTRAL = {"lam": 0.95, "cliprange_value": 0.2, "vf_coef": 0.1, "whiten_advantages": True, "missing_eos_penalty": 1.0}


@pytest.mark.parametrize("name", PRINTED_VALUE_RATE)
def test_presets_give_the_papers_numbers_with_their_marks(name: str) -> None:
    config = PpoConfig(policy="a", prompts="b", output_dir="c", preset=name)
    marks = {option: marked.mark for option, marked in PpoConfig.presets[name].items()}
    for option, value in {**PRINTED, "value_learning_rate": PRINTED_VALUE_RATE[name]}.items():
        assert getattr(config, option) == value, option
        assert marks.pop(option) == "P", option
    for option, value in ANCESTRAL.items():
        assert getattr(config, option) == value, option
        assert marks.pop(option) == "A", option
    assert set(marks.values()) == {"O"}
    # The paper prints no learning rate for the policy, only that above 8.05e-6 it diverges without ptx (E.9).
    assert "learning_rate" in marks
    assert config.learning_rate <= 8.05e-6
    assert config.iterations == 500


def test_an_option_that_is_given_wins_over_the_preset() -> None:
    config = PpoConfig(policy="a", prompts="b", output_dir="c", preset="instructgpt-1.3b", mini_batch_size=32)
    assert config.mini_batch_size == 32


def test_defaults_are_the_presets_where_no_size_is_meant() -> None:
    config = PpoConfig(policy="a", prompts="b", output_dir="c")
    for option, value in {**PRINTED, **ANCESTRAL}.items():
        # fp16 and leaving out long prompts belong to the paper's scale; a newcomer gets float32 and an error.
        if option not in ("dtype", "on_overlong"):
            assert getattr(config, option) == value, option


def expect(world: World, error: type[InstructGPTError], rule: str, name: str, **options: Any) -> None:
    with pytest.raises(error, match=rule):
        world.run(name, **options)


def test_models_in_each_others_place(world: World) -> None:
    expect(world, CheckpointError, "must hold a language model", "swap-a", policy=str(world.reward_model))
    expect(world, CheckpointError, "must hold a reward model", "swap-b", reward_model=str(world.policy))


def test_one_source_of_rewards(world: World) -> None:
    expect(world, ConfigError, "exactly one of reward_model .* got both", "both", reward_fn=share_of_small_letters,
           reward_model=str(world.reward_model))
    expect(world, ConfigError, "got neither", "neither", reward_model=None)


def test_vocabularies_that_differ(world: World, tmp_path: Path) -> None:
    other = Tokenizer.train(["a quick brown fox jumps over a lazy dog, again and again. " * 40], 300)
    model = save_reward_model(tmp_path, other)
    expect(world, CheckpointError, "must share one tokenizer", "vocabulary", reward_model=str(model))


def test_prompts_that_do_not_fit(world: World, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "long.jsonl", ["the cat", "the cat sat on the mat " * 30])
    expect(world, DataError, r"long\.jsonl:2: the prompt must have at most 38 tokens", "long", prompts=str(prompts))
    result = world.run("long-skip", prompts=str(prompts), on_overlong="skip", total_episodes=8)
    assert result.metrics["episode"] == 8
    only = write_prompts(tmp_path / "only.jsonl", ["the cat sat on the mat " * 30])
    expect(world, DataError, "one at least must fit", "none", prompts=str(only), on_overlong="skip")
    expect(world, ConfigError, "max_response_tokens must leave room", "room", max_response_tokens=48)


def test_a_bad_line_is_named(world: World, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"prompt": "the cat"}) + "\nnot json\n", encoding="utf-8")
    expect(world, DataError, r"bad\.jsonl:2", "bad", prompts=str(path))
    empty = tmp_path / "empty.jsonl"
    empty.write_text(json.dumps({"prompt": ""}) + "\n", encoding="utf-8")
    expect(world, DataError, r"empty\.jsonl:1", "empty", prompts=str(empty))


def test_ptx_windows_must_fit(world: World) -> None:
    expect(world, ConfigError, "ptx_length must fit the policy's context of 48, got 99", "ptx-length",
           ptx_data=str(world.text), ptx_length=99)


def test_dropout_of_the_supervised_model_is_switched_off(world: World, tmp_path: Path) -> None:
    noisy = save_policy(tmp_path, world.tokenizer, residual_dropout=0.5)
    result = world.run("dropout-off", policy=str(noisy), total_episodes=8)
    assert result.metrics["episode"] == 8


# What follows breaks one thing in a whole run; the checks before the first update must find it.


def test_dropout_left_on_is_found(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = save_policy(tmp_path, world.tokenizer, residual_dropout=0.5)

    def keep_dropout(run: Any, path: str, **_: Any) -> Any:
        start = load_start(run, path)
        return start.model, start

    monkeypatch.setattr(ppo_parts, "load_gpt", keep_dropout)
    expect(world, TrainingError, "dropout is left on in the policy", "dropout-on", policy=str(noisy))


def test_another_sampling_temperature_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def cold(max_new_tokens: int, temperature: float) -> SamplingConfig:
        return SamplingConfig(max_new_tokens=max_new_tokens, temperature=0.3)

    monkeypatch.setattr(ppo_rollout, "SamplingConfig", cold)
    expect(world, TrainingError, "does not use the sampler's temperature", "temperature")


def test_another_reference_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    build = ppo.build_parts

    def with_other_reference(config: Any, run: Any, reward_fn: Any) -> Any:
        parts = build(config, run, reward_fn)
        with torch.no_grad():
            parts.reference.wte.weight.mul_(1.5)
        return parts

    monkeypatch.setattr(ppo, "build_parts", with_other_reference)
    expect(world, TrainingError, "policy must start as a copy of the reference", "reference")
    world.run("reference-allowed", check_invariants=False, total_episodes=8)


def test_a_policy_that_moves_before_the_first_update_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    check = ppo.check_before_training

    def check_then_move(config: Any, parts: Any, rollout: Any, experience: Any) -> None:
        check(config, parts, rollout, experience)
        with torch.no_grad():
            parts.policy.wte.weight.mul_(1.5)

    monkeypatch.setattr(ppo, "check_before_training", check_then_move)
    expect(world, TrainingError, "ratio is 1 on the first minibatch", "moved")


def test_scores_that_are_not_normalised_are_found(world: World, tmp_path: Path) -> None:
    demonstrations = tmp_path / "demonstrations.jsonl"
    lines = [json.dumps({"prompt": "the cat", "response": f" sat on mat {i}"}) for i in range(8)]
    demonstrations.write_text("\n".join(lines) + "\n", encoding="utf-8")
    shifted = save_reward_model(tmp_path, world.tokenizer, shift=50.0)
    expect(world, TrainingError, "bias was not normalised", "bias", reward_model=str(shifted),
           demonstrations=str(demonstrations))
    world.run("bias-allowed", reward_model=str(shifted), demonstrations=str(demonstrations), check_invariants=False,
              total_episodes=8)
