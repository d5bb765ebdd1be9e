"""Shapes and names: every preset against the tables its source prints, typed here a second time."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.model import GPT, MODEL_PRESETS, GPTConfig, model_config, model_preset

# Brown et al. 2020, table 2.1: layers, d_model, heads, d_head, batch in tokens, learning rate. Of 1.3B the heads and
# of 13B the width are those that multiply out, not those printed.
GPT3 = {
    "gpt3-125m": (12, 768, 12, 64, 0.5e6, 6.0e-4),
    "gpt3-350m": (24, 1024, 16, 64, 0.5e6, 3.0e-4),
    "gpt3-760m": (24, 1536, 16, 96, 0.5e6, 2.5e-4),
    "gpt3-1.3b": (24, 2048, 16, 128, 1e6, 2.0e-4),
    "gpt3-2.7b": (32, 2560, 32, 80, 1e6, 1.6e-4),
    "gpt3-6.7b": (32, 4096, 32, 128, 2e6, 1.2e-4),
    "gpt3-13b": (40, 5120, 40, 128, 2e6, 1.0e-4),
    "gpt3-175b": (96, 12288, 96, 128, 3.2e6, 0.6e-4),
}
# Weights of the released GPT-2 checkpoints, the tied embedding counted once.
GPT2_PARAMETERS = {
    "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200,
}


@pytest.mark.parametrize("name", GPT3)
def test_gpt3_table(name: str) -> None:
    layers, width, heads, head_width, batch, rate = GPT3[name]
    preset = MODEL_PRESETS[name]
    config = preset.config
    assert (config.n_layer, config.d_model, config.n_head, config.d_head) == (layers, width, heads, head_width)
    assert (preset.batch_tokens, preset.learning_rate) == (batch, rate)
    assert (config.n_positions, config.feed_forward, config.band_width) == (2048, 4 * width, 256)
    # The size in the name counts roughly: the paper's own numbers are rounded.
    nominal = float(name[5:-1]) * {"m": 1e6, "b": 1e9}[name[-1]]
    assert config.num_parameters == pytest.approx(nominal, rel=0.05)


@pytest.mark.parametrize("name", GPT2_PARAMETERS)
def test_gpt2_parameter_counts(name: str) -> None:
    config = MODEL_PRESETS[name].config
    assert config.num_parameters == GPT2_PARAMETERS[name]
    assert (config.vocab_size, config.n_positions, config.band_width) == (50257, 1024, None)


@pytest.mark.parametrize("name", ["tiny", "mini", "small", "gpt2", "gpt3-1.3b", "gpt3-175b"])
def test_the_built_model_has_the_counted_parameters(name: str) -> None:
    config = MODEL_PRESETS[name].config
    model = GPT(config, device="meta")
    assert sum(p.numel() for p in model.parameters()) == config.num_parameters


def test_every_number_is_marked() -> None:
    fields = {field.name for field in dataclasses.fields(GPTConfig)}
    for name, preset in MODEL_PRESETS.items():
        numbers = fields | ({"batch_tokens", "learning_rate"} if preset.batch_tokens else set())
        assert set(preset.marks) == numbers, name
        assert set(preset.marks.values()) <= {"P", "A", "O"}, name
        assert all(preset.marks[field] == "O" for field in preset.notes), name


def test_model_config_takes_names_mappings_and_changes() -> None:
    assert model_config("gpt2-124m") == model_config("GPT2") == MODEL_PRESETS["gpt2"].config
    assert model_config("tiny", vocab_size=300, n_positions=64).vocab_size == 300
    wide = model_config({"preset": "tiny", "d_model": 128}, 300)
    assert (wide.d_model, wide.feed_forward, wide.n_layer) == (128, 512, 2)
    assert model_config(wide, n_layer=3).n_layer == 3
    plain = {"vocab_size": 10, "n_positions": 8, "n_layer": 1, "n_head": 1, "d_model": 4}
    assert model_config(plain) == GPTConfig(**plain)
    assert GPTConfig.from_dict(wide.to_dict()) == wide


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpt2-midium",), "did you mean 'gpt2-medium'"),
        (({"preset": "tiny", "d_modle": 4},), "did you mean 'd_model'"),
        (({"n_layer": 1},), "vocab_size"),
        (({"preset": "tiny", "n_head": 7},), "multiple of n_head"),
        (({"preset": "tiny", "n_layer": 0},), "n_layer must be a positive integer"),
        (({"preset": "tiny", "band_width": 0},), "band_width must be a positive integer"),
        (({"preset": "tiny", "residual_dropout": 1.0},), r"in \[0, 1\)"),
        (({"preset": "tiny", "layer_norm_eps": 0.0},), "layer_norm_eps must be positive"),
    ],
)
def test_errors(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_config(*arguments)


def test_preset_notes_say_what_the_paper_prints() -> None:
    assert "24" in model_preset("gpt3-1.3b").notes["n_head"]
    assert "5140" in model_preset("gpt3-13b").notes["d_model"]


def test_alternate_layers_are_banded() -> None:
    config = model_config("gpt3-125m")
    assert [config.window(layer) for layer in range(4)] == [None, 256, None, 256]
    with torch.device("meta"):
        model = GPT(config)
    assert [block.attn.window for block in model.h][:4] == [None, 256, None, 256]
