"""Checkpoints for others: a folder that transformers and what builds on it load, with equal logits and ids.

Not covered: chat text that contains a special token's name (see hugging_face_template); a sharded folder that holds
files of an earlier export with more shards is replaced as a whole, so no stale shard stays.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instructgpt_fast._version import VERSION
from instructgpt_fast.checkpoint.directory import written_whole
from instructgpt_fast.checkpoint.hugging_face_bands import fold_attention
from instructgpt_fast.checkpoint.hugging_face_config import OWN_KEY, Family, write_config
from instructgpt_fast.checkpoint.hugging_face_folder import CONFIG, INDEX, WEIGHTS, read_object
from instructgpt_fast.checkpoint.hugging_face_template import CHAT_TEMPLATE
from instructgpt_fast.checkpoint.hugging_face_weights import foreign_shapes, to_foreign
from instructgpt_fast.checkpoint.load import Loaded, load_model
from instructgpt_fast.checkpoint.tensors import save_tensors
from instructgpt_fast.device import torch_dtype
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel

DEFAULT_SHARD = "5GB"

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?B)", re.IGNORECASE)
_OWN_FILES = re.compile(
    r"(generation_|tokenizer_)?config\.json|tokenizer\.json|special_tokens_map\.json|"
    r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
)


def export_hugging_face(
    checkpoint: str | os.PathLike[str] | Loaded,
    output_dir: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str | None = None,
    max_shard_size: int | str = DEFAULT_SHARD,
) -> Path:
    """Write a model, whole or not at all, as a folder in Hugging Face's layout and return its path.

    checkpoint: a checkpoint, a run directory, or what `load_model` returned. A language model becomes GPT2LMHeadModel
    (with a chat template when its prompts are dialogues), a reward model GPT2ForSequenceClassification with one label:
    its head has no bias there, so head.bias + bias_shift = c goes into ln_f.bias as c w / (w.w), w the head's weight.
    With windows (`band_width` below `n_positions`) they become GPT-Neo's classes, the only ones that have them; that
    needs a change of weights (`hugging_face_bands`), which is measured before anything is written.
    output_dir: new, empty, or an earlier export, which is replaced. dtype: None keeps the stored one, else a torch
    dtype or "fp32", "bf16", "fp16". max_shard_size: bytes, or text such as "5GB"; larger weights are split into files.
    Raises CheckpointError when the checkpoint is damaged, the folder holds something else, the disk refuses, or the
    model cannot be expressed; ConfigError for a dtype or size that is none.
    """
    largest = _bytes(max_shard_size)
    target = Path(os.path.abspath(output_dir))
    _require_free(target)
    loaded = checkpoint if isinstance(checkpoint, Loaded) else load_model(checkpoint)
    model = loaded.model
    wanted = _dtype(dtype) or next(model.parameters()).dtype
    config, family = _expressed(model.config)
    tensors = _tensors(model, config, family, wanted)
    tokenizer = loaded.tokenizer
    described = write_config(
        config, family, scalar=isinstance(model, ScalarModel), eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id,
        dtype=str(wanted).removeprefix("torch."),
        own={"version": VERSION, "stage": loaded.stage, "prompt_format": loaded.prompt_format},
    )
    with written_whole(target, manifest=False) as temporary:
        shapes = foreign_shapes(config, family, scalar=isinstance(model, ScalarModel))
        sizes = {name: math.prod(shape) * wanted.itemsize for name, shape in shapes.items()}
        _write_weights(temporary, tensors, sizes, wanted, largest)
        _write_json(temporary / CONFIG, described)
        if isinstance(model, GPT):
            ids = {key: described[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
            _write_json(temporary / "generation_config.json", ids)
        _write_tokenizer(temporary, loaded, config.n_positions)
    return target


def _expressed(config: GPTConfig) -> tuple[GPTConfig, Family]:
    """The config without a window that never cuts anything off, and the family of classes that it needs."""
    if config.band_width is not None and (config.band_width >= config.n_positions or config.n_layer == 1):
        config = dataclasses.replace(config, band_width=None)
    return config, "gpt2" if config.band_width is None else "gpt_neo"


@torch.no_grad()
def _tensors(
    model: GPT | ScalarModel, config: GPTConfig, family: Family, dtype: torch.dtype
) -> dict[str, Callable[[], Tensor]]:
    """Foreign name -> what makes its tensor."""
    trunk = model.trunk if isinstance(model, ScalarModel) else model
    weights: Mapping[str, Tensor] = {name: tensor.detach().cpu() for name, tensor in trunk.state_dict().items()}
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"export: {name} must hold finite numbers, got NaN or infinity; use another one.")
    if family == "gpt_neo":
        weights = fold_attention(weights, config, dtype)
    if not isinstance(model, ScalarModel):
        return {f"transformer.{name}": make for name, make in to_foreign(weights, family).items()}
    weights = {**weights, "ln_f.bias": _with_head_bias(model, weights["ln_f.bias"])}
    score = model.head.weight.detach().cpu()
    return {
        **{f"transformer.{name}": make for name, make in to_foreign(weights, family).items()},
        "score.weight": lambda: score,
    }


def _with_head_bias(model: ScalarModel, bias: Tensor) -> Tensor:
    """ln_f.bias grown along the head's weight w so that w . bias grows by the head's bias and shift, in f32."""
    weight = model.head.weight.detach().cpu().double().squeeze(0)
    constant = float(model.head.bias.double()) + float(model.bias_shift.double())
    if constant == 0.0:
        return bias
    square = float(weight @ weight)
    if square == 0.0:
        raise CheckpointError(
            "export: a reward model's head must have a weight that is not zero, got a head of bias alone; "
            "the class of others has no bias to put it in."
        )
    return (bias.double() + weight * (constant / square)).float()


def _write_weights(
    folder: Path, tensors: Mapping[str, Callable[[], Tensor]], sizes: Mapping[str, int], dtype: torch.dtype,
    largest: int,
) -> None:
    shards: list[list[str]] = [[]]
    room = largest
    for name in tensors:
        size = sizes[name.removeprefix("transformer.")]
        if size > room and shards[-1]:
            shards.append([])
            room = largest
        shards[-1].append(name)
        room -= size
    count = len(shards)
    files = [WEIGHTS] if count == 1 else [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    for file, names in zip(files, shards, strict=True):
        made = {name: tensors[name]().to(dtype) for name in names}
        _require_finite(made, dtype)
        save_tensors(folder / file, made, metadata={"format": "pt"})
    if count > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        _write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places})


def _require_finite(made: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    for name, tensor in made.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"export: {name} must fit into {dtype}, got numbers beyond it; use bf16 or fp32.")


def _write_tokenizer(folder: Path, loaded: Loaded, n_positions: int) -> None:
    tokenizer = loaded.tokenizer
    try:
        tokenizer.save(folder)
    except DataError as cause:
        raise CheckpointError(f"export: {cause}") from cause
    names = {"bos_token": tokenizer.eos_token, "eos_token": tokenizer.eos_token, "pad_token": tokenizer.pad_token}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", **names, "model_max_length": n_positions,
        "clean_up_tokenization_spaces": False,
    }
    if loaded.prompt_format == "dialogue":
        settings["chat_template"] = CHAT_TEMPLATE
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", names)


def _require_free(target: Path) -> None:
    """Refuse a folder that holds anything but an earlier export."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise CheckpointError(f"export: {target} must be a folder, got a file or a link; choose another output_dir.")
    names = sorted(path.name for path in target.iterdir())
    if not names:
        return
    foreign = [name for name in names if not _OWN_FILES.fullmatch(name)]
    if foreign or CONFIG not in names or OWN_KEY not in read_object(target, CONFIG):
        raise CheckpointError(
            f"export: {target} must be new, empty, or an earlier export, got a folder with {(foreign or names)[0]}; "
            "choose another output_dir."
        )


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    made = torch_dtype(dtype) if isinstance(dtype, str) else dtype
    if made not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ConfigError(f"export: dtype must be float32, bfloat16 or float16, got {made}; choose one of them.")
    return made


def _bytes(size: int | str) -> int:
    match = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    number = size if isinstance(size, int) and not isinstance(size, bool) else None
    if match is not None:
        number = int(float(match[1]) * _UNITS[match[2].upper()])
    if number is None or number < 1:
        raise ConfigError(f"export: max_shard_size must be bytes or text such as '5GB', got {size!r}; correct it.")
    return number


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
