"""The list of a checkpoint's files with their sizes and SHA-256, by which damage is found before anything is used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from instructgpt_fast.errors import CheckpointError

MANIFEST = "manifest.json"
FORMAT = "instructgpt_fast checkpoint"
VERSION = 1

REMEDY = "use another checkpoint of the run, or copy this one again"


def write_manifest(directory: Path) -> None:
    """List every file below `directory` in its manifest."""
    files = {
        path.relative_to(directory).as_posix(): {"size": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    content = {"format": FORMAT, "version": VERSION, "files": files}
    (directory / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def verify(directory: Path) -> None:
    """Read every listed file and compare; raises CheckpointError naming the first that is missing or changed."""
    manifest = read_json(directory / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint: {directory / MANIFEST} must be a checkpoint's manifest, got other content; {REMEDY}."
        )
    if manifest.get("version") != VERSION:
        raise CheckpointError(
            f"checkpoint: {directory} must be of version {VERSION}, got {manifest.get('version')!r}; "
            "use the version of this package that wrote it."
        )
    for name, expected in files.items():
        _verify_file(directory / name, expected)


def read_json(path: Path) -> Any:
    """Parse a JSON file of a checkpoint; raises CheckpointError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise CheckpointError(f"checkpoint: cannot read {path}: {cause.strerror}; {REMEDY}.") from cause
    except ValueError as cause:
        raise CheckpointError(f"checkpoint: {path} must be JSON, got a damaged file ({cause}); {REMEDY}.") from cause


def _verify_file(path: Path, expected: Any) -> None:
    try:
        size = path.stat().st_size
        if size != expected["size"]:
            raise CheckpointError(f"checkpoint: {path} must have {expected['size']} bytes, got {size}; {REMEDY}.")
        if _sha256(path) != expected["sha256"]:
            raise CheckpointError(f"checkpoint: {path} must have the SHA-256 of its manifest, got another; {REMEDY}.")
    except OSError as cause:
        raise CheckpointError(f"checkpoint: cannot read {path}: {cause.strerror}; {REMEDY}.") from cause
    except (KeyError, TypeError) as cause:
        raise CheckpointError(
            f"checkpoint: the manifest's entry of {path} is damaged, got {expected!r}; {REMEDY}."
        ) from cause


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
