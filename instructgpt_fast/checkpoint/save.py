"""Writing a checkpoint: the model for use, and beside it everything a run needs to go on bit for bit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from instructgpt_fast.checkpoint import random_state
from instructgpt_fast.checkpoint.directory import written_whole
from instructgpt_fast.checkpoint.tensors import save_tensors
from instructgpt_fast.errors import CheckpointError, DataError
from instructgpt_fast.model import GPT, ScalarModel
from instructgpt_fast.optim import AdamW
from instructgpt_fast.tokenizer import Tokenizer

PromptFormat = Literal["raw", "dialogue"]

CONFIG = "config.json"
MODEL = "model.safetensors"
TRAINER_STATE = "trainer/state.json"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class TrainerState:
    """What a run needs beside the model.

    modules: every module that training changes, by name; the saved model itself is stored once and referred to.
    optimizers: by name. counters: JSON values that the stage asks back (step, data position, KL coefficient, ...).
    config: the resolved options, for the reader.
    """

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, AdamW] = field(default_factory=dict)
    counters: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(
    directory: str | os.PathLike[str],
    *,
    model: GPT | ScalarModel,
    tokenizer: Tokenizer,
    prompt_format: PromptFormat,
    stage: str,
    trainer: TrainerState | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint directory whole or not at all, and return its path.

    directory: usually <run>/checkpoint-<step>; one that exists is replaced. Missing parents are made.
    model: its config and weights become config.json and model.safetensors. stage: who made it ("sft", "reward", ...).
    prompt_format: how a prompt is encoded for this model. trainer: what resuming needs; None for a model only.
    weights: stored instead of the model's own where a name is given, in the model's dtype (averaged weights).
    Raises CheckpointError when the tokenizer's vocabulary is not the model's, or the disk refuses.
    """
    if tokenizer.vocab_size != model.config.vocab_size:
        raise CheckpointError(
            f"save_checkpoint: the model's vocabulary must be the tokenizer's, got {model.config.vocab_size} and "
            f"{tokenizer.vocab_size}; build the model with vocab_size=tokenizer.vocab_size."
        )
    target = Path(directory)
    with written_whole(target) as temporary:
        own = model.state_dict()
        published = {name: (weights or {}).get(name, tensor).to(tensor.dtype) for name, tensor in own.items()}
        save_tensors(temporary / MODEL, published)
        _save_tokenizer(temporary, tokenizer)
        _write_json(temporary / CONFIG, _describe(model, prompt_format, stage))
        if trainer is not None:
            _write_trainer(temporary, trainer, None if weights else model)
    return target


def _describe(model: GPT | ScalarModel, prompt_format: str, stage: str) -> dict[str, Any]:
    dtype = next(model.parameters()).dtype
    return {
        "kind": "scalar" if isinstance(model, ScalarModel) else "gpt",
        "model": model.config.to_dict(),
        "dtype": str(dtype).removeprefix("torch."),
        "prompt_format": prompt_format,
        "stage": stage,
        "torch": torch.__version__,
    }


def _write_trainer(directory: Path, trainer: TrainerState, stored: nn.Module | None) -> None:
    (directory / "trainer").mkdir()
    state: dict[str, Any] = {
        "modules": {}, "optimizers": {}, "counters": dict(trainer.counters), "config": dict(trainer.config),
        "random": random_state.capture(),
    }
    for name, module in trainer.modules.items():
        state["modules"][name] = MODEL if module is stored else f"trainer/{_plain(name)}.safetensors"
        if module is not stored:
            save_tensors(directory / state["modules"][name], module.state_dict())
    for name, optimizer in trainer.optimizers.items():
        state["optimizers"][name] = f"trainer/optimizer-{_plain(name)}.safetensors"
        save_tensors(directory / state["optimizers"][name], optimizer.state_dict())
    _write_json(directory / TRAINER_STATE, state)


def _save_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    try:
        tokenizer.save(directory)
    except DataError as cause:
        raise CheckpointError(f"save_checkpoint: {cause}") from cause


def _plain(name: str) -> str:
    if not _PLAIN_NAME.fullmatch(name):
        raise CheckpointError(
            f"save_checkpoint: a name must be letters, digits, '_', '.' or '-', got {name!r}; rename it."
        )
    return name


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
