"""Model shapes that have a name, each number with the mark of where it comes from.

Marks: "P" printed in the paper named as the source; "A" from the code its authors released; "O" our own choice,
because nobody prints it or because the printed number cannot be right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instructgpt_fast.config import nearest
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.model.config import GPTConfig

GPT2_VOCABULARY = 50257


@dataclass(frozen=True)
class ModelPreset:
    """A named shape: `config`, a mark for every field of it that is set, and the source of the printed numbers.

    batch_tokens, learning_rate: batch size in tokens and peak learning rate of pretraining, where printed.
    notes: why a number departs from what the source prints, by field.
    """

    config: GPTConfig
    marks: Mapping[str, str]
    source: str
    batch_tokens: int | None = None
    learning_rate: float | None = None
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _gpt3(
    n_layer: int,
    d_model: int,
    n_head: int,
    batch_tokens: int,
    learning_rate: float,
    notes: Mapping[str, str] | None = None,
) -> ModelPreset:
    config = GPTConfig(
        vocab_size=GPT2_VOCABULARY, n_positions=2048, n_layer=n_layer, n_head=n_head, d_model=d_model, band_width=256
    )
    notes = notes or {}
    marks = {
        "vocab_size": "A", "n_positions": "P", "n_layer": "P", "n_head": "P", "d_model": "P", "d_ff": "P",
        "residual_dropout": "O", "band_width": "O", "layer_norm_eps": "A", "batch_tokens": "P", "learning_rate": "P",
    }
    return ModelPreset(
        config, marks | dict.fromkeys(notes, "O"), "Brown et al. 2020, arXiv:2005.14165, table 2.1",
        batch_tokens, learning_rate, notes,
    )


def _gpt2(n_layer: int, d_model: int, n_head: int) -> ModelPreset:
    config = GPTConfig(
        vocab_size=GPT2_VOCABULARY, n_positions=1024, n_layer=n_layer, n_head=n_head, d_model=d_model
    )
    marks = {
        "vocab_size": "P", "n_positions": "P", "n_layer": "P", "n_head": "A", "d_model": "P", "d_ff": "A",
        "residual_dropout": "A", "band_width": "A", "layer_norm_eps": "A",
    }
    return ModelPreset(config, marks, "Radford et al. 2019, Language Models are Unsupervised Multitask Learners")


def _small(n_layer: int, d_model: int, n_head: int, n_positions: int) -> ModelPreset:
    config = GPTConfig(
        vocab_size=GPT2_VOCABULARY, n_positions=n_positions, n_layer=n_layer, n_head=n_head, d_model=d_model
    )
    marks = {field.name: "O" for field in dataclasses.fields(GPTConfig)}
    return ModelPreset(config, marks, "sized for a CPU; pass vocab_size for a tokenizer of one's own")


MODEL_PRESETS: dict[str, ModelPreset] = {
    "tiny": _small(2, 64, 2, 128),
    "mini": _small(4, 128, 4, 256),
    "small": _small(4, 256, 4, 512),
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "gpt3-125m": _gpt3(12, 768, 12, 500_000, 6.0e-4),
    "gpt3-350m": _gpt3(24, 1024, 16, 500_000, 3.0e-4),
    "gpt3-760m": _gpt3(24, 1536, 16, 500_000, 2.5e-4),
    "gpt3-1.3b": _gpt3(
        24, 2048, 16, 1_000_000, 2.0e-4,
        {"n_head": "the table prints 24 heads of width 128, which is 3072 and not the printed d_model of 2048"},
    ),
    "gpt3-2.7b": _gpt3(32, 2560, 32, 1_000_000, 1.6e-4),
    "gpt3-6.7b": _gpt3(32, 4096, 32, 2_000_000, 1.2e-4),
    "gpt3-13b": _gpt3(
        40, 5120, 40, 2_000_000, 1.0e-4,
        {"d_model": "the table prints 5140, which is not its 40 heads of width 128"},
    ),
    "gpt3-175b": _gpt3(96, 12288, 96, 3_200_000, 0.6e-4),
}

MODEL_ALIASES: dict[str, str] = {
    "gpt2-124m": "gpt2",
    "gpt2-small": "gpt2",
    "gpt3-small": "gpt3-125m",
    # The InstructGPT paper rounds the name of its middle size.
    "gpt3-6b": "gpt3-6.7b",
}


def model_preset(name: str) -> ModelPreset:
    """Return the preset called `name` (case does not matter); raises ConfigError naming the nearest ones."""
    key = name.lower()
    key = MODEL_ALIASES.get(key, key)
    if key in MODEL_PRESETS:
        return MODEL_PRESETS[key]
    known = [*MODEL_PRESETS, *MODEL_ALIASES]
    raise ConfigError(f"model: no preset is called {name!r}{nearest(key, known)} There are {', '.join(known)}.")


def model_config(
    model: str | Mapping[str, Any] | GPTConfig, vocab_size: int | None = None, **overrides: Any
) -> GPTConfig:
    """Turn a preset name, a mapping of fields, or a config into a GPTConfig, with some fields replaced.

    vocab_size: replaces the one of the preset, usually by the size of the tokenizer in use.
    overrides: further fields of GPTConfig. A mapping may carry "preset" to start from one.
    Raises ConfigError on an unknown preset or field, or a number out of range.
    """
    changes = dict(overrides)
    if vocab_size is not None:
        changes["vocab_size"] = vocab_size
    if isinstance(model, GPTConfig):
        fields = model.to_dict()
    elif isinstance(model, str):
        fields = model_preset(model).config.to_dict()
    else:
        given = dict(model)
        preset = given.pop("preset", None)
        fields = {} if preset is None else model_preset(preset).config.to_dict()
        fields |= given
    return GPTConfig.from_dict(fields | changes)
