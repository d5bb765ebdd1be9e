"""Tensors in safetensors files: plain numbers with a header, so that reading one never runs code."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from instructgpt_fast.checkpoint.manifest import REMEDY
from instructgpt_fast.errors import CheckpointError

_SYSTEM_ERROR = re.compile(r"os error (\d+)")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors by name, and words about them; raises OSError when the disk refuses, as any other write does."""
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, metadata)
    except SafetensorError as error:
        # The library puts the system's error number into its text; without it the full disk could not be told apart.
        number = _SYSTEM_ERROR.search(str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file to the CPU; raises CheckpointError when it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as cause:
        raise CheckpointError(f"checkpoint: {path} must be a safetensors file, got: {cause}; {REMEDY}.") from cause


@torch.no_grad()
def copy_into(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, same_dtype: bool) -> None:
    """Copy stored tensors over a module's parameters and buffers, all of them.

    same_dtype: refuse another dtype instead of converting. Raises CheckpointError naming what is missing or differs.
    """
    own = module.state_dict(keep_vars=True)
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"checkpoint: {path} must hold the tensors of {type(module).__name__}, got {len(missing)} missing "
            f"{missing[:3]} and {len(unexpected)} unexpected {unexpected[:3]}; {REMEDY}."
        )
    for name, tensor in own.items():
        stored = tensors[name]
        if stored.shape != tensor.shape or (same_dtype and stored.dtype != tensor.dtype):
            raise CheckpointError(
                f"checkpoint: {name} in {path} must be {tensor.dtype} {tuple(tensor.shape)}, got {stored.dtype} "
                f"{tuple(stored.shape)}; use the model configuration and dtype that it was saved with."
            )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
