"""The presets against tables typed in from the papers, number by number, mark by mark."""

from __future__ import annotations

import pytest

from instructgpt_fast.config import field_types
from instructgpt_fast.model import MODEL_PRESETS, model_preset
from instructgpt_fast.train import config_class
from instructgpt_fast.train.presets import PRETRAIN_PRESETS, REWARD_PRESETS, SFT_PRESETS

# Ouyang et al. 2022, arXiv:2203.02155, appendix C.1 (SFT) and C.3 (where PPO starts).
SFT_TABLE = {
    "instructgpt-1.3b": (9.65e-6, 32, 16, 0.0),
    "instructgpt-6b": (9.65e-6, 32, 16, 0.0),
    "instructgpt-175b": (5.03e-6, 8, 16, 0.0),
    "instructgpt-1.3b-rl-init": (5e-6, 32, 2, 0.1),
    "instructgpt-6b-rl-init": (1.04e-5, 32, 2, 0.1),
    "instructgpt-175b-rl-init": (2.45e-6, 8, 2, 0.1),
}

# Brown et al. 2020, arXiv:2005.14165, table 2.1: millions of tokens in a batch, learning rate.
GPT3_TABLE = {
    "gpt3-125m": (0.5, 6.0e-4), "gpt3-350m": (0.5, 3.0e-4), "gpt3-760m": (0.5, 2.5e-4), "gpt3-1.3b": (1.0, 2.0e-4),
    "gpt3-2.7b": (1.0, 1.6e-4), "gpt3-6.7b": (2.0, 1.2e-4), "gpt3-13b": (2.0, 1.0e-4), "gpt3-175b": (3.2, 0.6e-4),
}


def test_sft_presets_are_the_table() -> None:
    assert set(SFT_PRESETS) == set(SFT_TABLE)
    for name, (rate, batch, epochs, mix) in SFT_TABLE.items():
        config = config_class("sft")(
            preset=name, init="base", data="d", output_dir="o", pretrain_data="text" if mix else None,
        )
        assert config.learning_rate == rate
        assert config.batch_size == batch
        assert config.num_train_epochs == epochs
        assert config.pretrain_mix == mix
        assert config.residual_dropout == 0.2
        assert (config.min_learning_rate_ratio, config.warmup_steps) == (0.1, 0)
        assert (config.max_prompt_tokens, config.max_response_tokens, config.max_tokens) == (1024, 1024, 2048)


def test_reward_presets_are_the_text() -> None:
    for name in ("instructgpt-1.3b", "instructgpt-6b", "instructgpt-175b"):
        config = config_class("reward")(preset=name, init="base", data="d", output_dir="o")
        assert (config.learning_rate, config.batch_size, config.num_train_epochs) == (9e-6, 64, 1)
        assert (config.min_learning_rate_ratio, config.warmup_steps, config.grouped) == (0.1, 0, True)


def test_pretrain_presets_are_the_table() -> None:
    assert set(PRETRAIN_PRESETS) == set(GPT3_TABLE)
    for name, (millions, rate) in GPT3_TABLE.items():
        config = config_class("pretrain")(preset=name, data="d", output_dir="o")
        assert config.learning_rate == rate
        assert config.train_batch_tokens == millions * 1e6
        assert config.n_positions == 2048
        assert (config.adam_beta1, config.adam_beta2, config.adam_epsilon) == (0.9, 0.95, 1e-8)
        assert (config.max_grad_norm, config.weight_decay, config.min_learning_rate_ratio) == (1.0, 0.1, 0.1)
        assert (config.warmup_tokens, config.lr_decay_tokens, config.train_tokens) == (375e6, 260e9, 300e9)
        assert config.batch_ramp_start == 32_000
        assert 4e9 <= config.batch_ramp_tokens <= 12e9
        assert name in MODEL_PRESETS
        assert model_preset(name).learning_rate == rate
        assert model_preset(name).batch_tokens == config.train_batch_tokens


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward", "ppo"])
def test_every_preset_value_is_an_option_with_a_mark(stage: str) -> None:
    cls = config_class(stage)
    assert cls.presets
    for name, preset in cls.presets.items():
        for option, marked in preset.items():
            assert option in field_types(cls), f"{name} sets {option}, which {cls.__name__} does not have"
            assert marked.mark in {"P", "A", "O"}


def test_what_is_not_printed_is_not_marked_as_printed() -> None:
    """Weight decay, Adam's epsilon and gradient clipping of the InstructGPT stages are nowhere in the paper."""
    for presets in (SFT_PRESETS, REWARD_PRESETS):
        for preset in presets.values():
            for option in ("weight_decay", "adam_epsilon", "max_grad_norm"):
                assert preset[option].mark == "O"
            for option in ("learning_rate", "train_batch_size", "num_train_epochs", "adam_beta1", "dtype"):
                assert preset[option].mark == "P"
