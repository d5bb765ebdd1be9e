"""Writing input and reading output of `prepare` in tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OUTPUTS = ("train.jsonl", "valid.jsonl", "test.jsonl", "removed.jsonl")


def write_jsonl(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def outputs(folder: Path) -> dict[str, str]:
    """A hash of each output, and of the report without what depends on the clock and the process."""
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in OUTPUTS}
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    del report["timing"]
    for name in ("output_dir", "processes", "progress", "resume"):
        del report["options"][name]
    return {**found, "report.json": json.dumps(report)}
