"""Which checkpoint of a finished run is its result: not always the last, as SFT may choose by reward."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from instructgpt_fast.checkpoint.directory import resolve
from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.files import atomic_write

RESULT = "result.json"


def write_result(run: Path, checkpoint: Path, metrics: Mapping[str, float]) -> None:
    """Note in result.json which checkpoint of the run directory is its result. Raises CheckpointError."""
    content = {"checkpoint": checkpoint.name, "metrics": dict(metrics)}
    atomic_write(run / RESULT, json.dumps(content, indent=1) + "\n", error=CheckpointError)


def result_of(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint that a model is loaded from: of a finished run its result, else what `resolve` finds.

    Raises CheckpointError when result.json cannot be read, names a checkpoint that is gone, or as `resolve` does.
    """
    note = Path(path) / RESULT
    if not note.is_file():
        return resolve(path)
    try:
        name = json.loads(note.read_text(encoding="utf-8"))["checkpoint"]
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{name!r} is no name of a checkpoint")
    except (ValueError, KeyError, TypeError) as cause:
        raise CheckpointError(
            f"checkpoint: {note} must name the run's checkpoint, got: {cause}; delete it to use the newest one."
        ) from cause
    return resolve(note.parent / name)
