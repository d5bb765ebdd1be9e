"""Reading a checkpoint: verified first, then the model, the tokenizer, and the state of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from instructgpt_fast.checkpoint import random_state
from instructgpt_fast.checkpoint.directory import resolve
from instructgpt_fast.checkpoint.hugging_face_folder import is_hugging_face
from instructgpt_fast.checkpoint.hugging_face_import import read_hugging_face
from instructgpt_fast.checkpoint.manifest import REMEDY, read_json
from instructgpt_fast.checkpoint.result import result_of
from instructgpt_fast.checkpoint.save import CONFIG, MODEL, TRAINER_STATE, PromptFormat
from instructgpt_fast.checkpoint.tensors import copy_into, load_tensors
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.optim import AdamW
from instructgpt_fast.tokenizer import Tokenizer


@dataclass(frozen=True)
class Loaded:
    """A model with what belongs to it: its tokenizer, how prompts are encoded, the stage that made it, its path."""

    model: GPT | ScalarModel
    tokenizer: Tokenizer
    prompt_format: PromptFormat
    stage: str
    path: Path


def load_model(
    path: str | os.PathLike[str], *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Loaded:
    """Load a checkpoint for use, in eval mode.

    path: a checkpoint, a run directory for its result (see `result_of`), or a folder with a GPT-2 or GPT-Neo model in
    Hugging Face's layout (see `read_hugging_face`). dtype: None keeps the stored one.
    Draws no random numbers. Raises CheckpointError when it is damaged, incomplete, or its tokenizer's vocabulary is
    not the model's.
    """
    if is_hugging_face(Path(path)):
        found = read_hugging_face(Path(path), dtype=dtype, device=device)
        return Loaded(found.model, found.tokenizer, found.prompt_format, found.stage, Path(path))
    directory = result_of(path)
    described = read_json(directory / CONFIG)
    try:
        config = GPTConfig.from_dict(described["model"])
        make = {"gpt": GPT, "scalar": ScalarModel}[described["kind"]]
        stored_dtype = getattr(torch, described["dtype"])
        prompt_format, stage = described["prompt_format"], described["stage"]
    except (KeyError, TypeError, AttributeError, ConfigError) as cause:
        raise CheckpointError(
            f"checkpoint: {directory / CONFIG} must describe a model, got: {cause!r}; {REMEDY}."
        ) from cause
    tokenizer = _load_tokenizer(directory, config)
    # Built without memory first: weights that are about to be overwritten would cost time and random numbers.
    model: GPT | ScalarModel = make(config, device="meta", dtype=dtype or stored_dtype)
    # Not to_empty: its way over meta tensors imports sympy, a second that every command would wait.
    memory = {name: torch.empty(t.shape, dtype=t.dtype, device=device) for name, t in model.state_dict().items()}
    model.load_state_dict(memory, assign=True)
    copy_into(model, load_tensors(directory / MODEL), directory / MODEL, same_dtype=False)
    return Loaded(model.eval(), tokenizer, prompt_format, stage, directory)


def load_trainer(
    path: str | os.PathLike[str], modules: Mapping[str, nn.Module], optimizers: Mapping[str, AdamW]
) -> dict[str, Any]:
    """Restore a run in place and return its counters; torch's, numpy's and Python's random states are set last.

    modules, optimizers: the same names that were saved, built with the same configuration and dtype.
    Raises CheckpointError when the checkpoint is damaged, holds no run, or holds another one.
    """
    directory = resolve(path)
    if not (directory / TRAINER_STATE).exists():
        raise CheckpointError(
            f"checkpoint: {directory} must hold a run's state to resume, got a model only; start a new run from it."
        )
    state = read_json(directory / TRAINER_STATE)
    for kind, given in (("modules", modules), ("optimizers", optimizers)):
        if set(state[kind]) != set(given):
            raise CheckpointError(
                f"checkpoint: {directory} holds the {kind} {sorted(state[kind])}, got {sorted(given)} to restore; "
                "resume with the stage and the options that saved it."
            )
    for name, module in modules.items():
        file = directory / state["modules"][name]
        copy_into(module, load_tensors(file), file, same_dtype=True)
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(load_tensors(directory / state["optimizers"][name]))
    random_state.restore(state["random"])
    counters: dict[str, Any] = state["counters"]
    return counters


def require_same_vocabulary(first: Loaded, second: Loaded) -> None:
    """Raise CheckpointError unless both models read the same token ids, as policy and reward model must."""
    if first.tokenizer.fingerprint != second.tokenizer.fingerprint:
        raise CheckpointError(
            f"checkpoint: {first.path} and {second.path} must share one tokenizer, got vocabularies of "
            f"{first.tokenizer.vocab_size} and {second.tokenizer.vocab_size} tokens that differ; "
            "train both from the same base model."
        )


def _load_tokenizer(directory: Path, config: GPTConfig) -> Tokenizer:
    try:
        tokenizer = Tokenizer.load(directory)
    except DataError as cause:
        raise CheckpointError(f"checkpoint: the tokenizer of {directory} cannot be used: {cause}") from cause
    if tokenizer.vocab_size != config.vocab_size:
        raise CheckpointError(
            f"checkpoint: the vocabulary of model and tokenizer in {directory} must agree, got {config.vocab_size} and "
            f"{tokenizer.vocab_size} tokens; restore the tokenizer.json that the model was trained with."
        )
    return tokenizer
