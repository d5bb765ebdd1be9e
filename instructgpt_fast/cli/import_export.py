"""The commands import and export: models between Hugging Face's folders and checkpoints of this package."""

from __future__ import annotations

import json
import sys
from typing import Literal

from instructgpt_fast.config import Options, options_class


@options_class()
class Import(Options):
    """Every command takes such a folder as it is; a checkpoint of one's own also has checksums."""

    folder: str
    """Local folder with config.json, safetensors, and tokenizer.json or vocab.json and merges.txt."""
    output_dir: str
    """New or empty folder for the checkpoint."""
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    """Type of the stored weights; None keeps the folder's."""


def import_folder(options: Import) -> None:
    """Write the checkpoint and say what it holds."""
    from instructgpt_fast.checkpoint import import_hugging_face, load_model
    from instructgpt_fast.model import ScalarModel

    path = import_hugging_face(options.folder, options.output_dir, dtype=options.dtype)
    loaded = load_model(path)
    kind = "reward model" if isinstance(loaded.model, ScalarModel) else "language model"
    shape = loaded.model.config
    sys.stdout.write(
        f"{kind}: {shape.num_parameters:,} parameters, {shape.n_layer} layers, width {shape.d_model}, "
        f"{shape.vocab_size:,} tokens, {loaded.prompt_format} prompts\ncheckpoint: {path}\n"
    )


@options_class()
class Export(Options):
    """GPT-2's classes, or GPT-Neo's for a model with windows; weights as safetensors, the tokenizer beside them."""

    checkpoint: str
    """Checkpoint or run directory of a language or reward model."""
    output_dir: str
    """New or empty folder, or that of an earlier export, which is replaced."""
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    """Type of the stored weights; None keeps the checkpoint's."""
    max_shard_size: str = "5GB"
    """Weights larger than this are split into several files."""


def export_checkpoint(options: Export) -> None:
    """Write the folder and name the class that loads it."""
    from instructgpt_fast.checkpoint import export_hugging_face

    path = export_hugging_face(
        options.checkpoint, options.output_dir, dtype=options.dtype, max_shard_size=options.max_shard_size
    )
    described = json.loads((path / "config.json").read_text(encoding="utf-8"))
    sys.stdout.write(f"{described['architectures'][0]} in {described['dtype']}: {path}\n")
