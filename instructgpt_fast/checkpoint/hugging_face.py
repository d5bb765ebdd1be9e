"""A Hugging Face folder as a checkpoint of this package, for those who want one; stages also read the folder itself."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from instructgpt_fast.checkpoint.hugging_face_folder import is_hugging_face
from instructgpt_fast.checkpoint.load import load_model
from instructgpt_fast.checkpoint.save import save_checkpoint
from instructgpt_fast.device import torch_dtype
from instructgpt_fast.errors import CheckpointError, ConfigError


def import_hugging_face(
    folder: str | os.PathLike[str], output_dir: str | os.PathLike[str], *, dtype: torch.dtype | str | None = None
) -> Path:
    """Write the GPT-2 or GPT-Neo model of a local folder as a checkpoint and return its path.

    folder: config.json, model.safetensors or shards with their index, and tokenizer.json or vocab.json with
    merges.txt. Every stage takes such a folder as it is; a checkpoint of one's own also has checksums.
    output_dir: new or empty. dtype: None keeps the stored one, else a torch dtype or "fp32", "bf16", "fp16".
    Raises CheckpointError for a folder that cannot be served exactly (see `load_model`) or a disk that refuses.
    """
    source, target = Path(folder), Path(os.path.abspath(output_dir))
    if not is_hugging_face(source):
        found = "nothing" if not source.exists() else "a folder without it"
        if _is_own(source):
            found = "a checkpoint of this package, which needs no import"
        raise CheckpointError(f"import: {source} must be a folder with Hugging Face's config.json, got {found}; "
                              "check the path.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"import: {target} must be new or an empty folder, got one in use; choose another.")
    wanted = torch_dtype(dtype) if isinstance(dtype, str) else dtype
    if wanted not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ConfigError(f"import: dtype must be float32, bfloat16 or float16, got {wanted}; choose one of them.")
    loaded = load_model(source, dtype=wanted)
    return save_checkpoint(
        target, model=loaded.model, tokenizer=loaded.tokenizer, prompt_format=loaded.prompt_format, stage=loaded.stage,
    )


def _is_own(path: Path) -> bool:
    return (path / "manifest.json").exists() or any(path.glob("checkpoint-*/manifest.json"))
