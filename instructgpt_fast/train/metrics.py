"""Metrics of a run as JSON lines, and as TensorBoard scalars when asked for.

One line a record: {"step": 20, "loss": 3.1, ...}; names follow Hugging Face's Trainer and TRL.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructgpt_fast.errors import CheckpointError, ConfigError
from instructgpt_fast.files import atomic_write, reporting_write_errors

METRICS_FILE = "metrics.jsonl"


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """The records of a run in the order they were written; an unfinished last line is left out."""
    path = Path(run_dir) / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


class MetricsLog:
    """Writes records of one run; `step` is the optimizer step (PPO: the update) that a record belongs to."""

    def __init__(self, run_dir: Path, report_to: str) -> None:
        """Open the logs in `run_dir`. Raises ConfigError when TensorBoard is asked for and not installed."""
        self._path = run_dir / METRICS_FILE
        self._board = _open_board(run_dir) if report_to == "tensorboard" else None

    def write(self, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """Append one record. A value that is not finite is written as text, since JSON has no word for it."""
        record: dict[str, Any] = {"step": step}
        for name, value in metrics.items():
            finite = not isinstance(value, float) or math.isfinite(value)
            record[name] = value if finite else str(value)
            if self._board is not None and not isinstance(value, str):
                self._board.add_scalar(name, value, step)
        with reporting_write_errors(self._path, CheckpointError), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def keep_until(self, step: int) -> None:
        """Drop the records after `step`: a resumed run writes them again."""
        if not self._path.exists():
            return
        kept = [record for record in read_metrics(self._path.parent) if record["step"] <= step]
        atomic_write(self._path, "".join(json.dumps(record) + "\n" for record in kept), error=CheckpointError)

    def close(self) -> None:
        """Flush and close."""
        if self._board is not None:
            self._board.close()


def _open_board(run_dir: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as cause:
        raise ConfigError(
            "report_to: 'tensorboard' needs the package tensorboard, got none installed; "
            "run: pip install 'instructgpt-fast[tensorboard]'"
        ) from cause
    return SummaryWriter(log_dir=str(run_dir / "tensorboard"))
