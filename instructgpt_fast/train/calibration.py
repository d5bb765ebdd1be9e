"""calibration.json of a reward run: how far the model's probabilities could be trusted at each evaluation.

{"evaluations": [{"step", "pairs", "prompts", "accuracy", "half_width", "expected_calibration_error", "log_loss",
                  "by_k": [{"k", "accuracy", "half_width", "pairs", "prompts"}],
                  "bins": [{"low", "high", "confidence", "share", "half_width", "pairs", "prompts"}]}]}

The words are those of `instructgpt_fast.evaluate.Calibration`; half_width is null where one prompt alone gives none.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.evaluate import Accuracy, RewardAccuracy
from instructgpt_fast.files import atomic_write

CALIBRATION_FILE = "calibration.json"


def keep_calibration(run_dir: Path, step: int, found: RewardAccuracy) -> None:
    """Add the evaluation after `step`; a resumed run writes those from its step on anew. Raises CheckpointError."""
    path = run_dir / CALIBRATION_FILE
    before: list[dict[str, Any]] = []
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["evaluations"]
        except (ValueError, KeyError, TypeError) as cause:
            raise CheckpointError(
                f"calibration: {path} must hold this run's evaluations, got: {cause}; delete the file to go on."
            ) from cause
    kept = [evaluation for evaluation in before if evaluation["step"] < step]
    atomic_write(path, json.dumps({"evaluations": [*kept, as_json(step, found)]}) + "\n", error=CheckpointError)


def as_json(step: int, found: RewardAccuracy) -> dict[str, Any]:
    """One evaluation as plain JSON."""
    return {
        "step": step, **_plain(found.overall), "expected_calibration_error": found.calibration.error,
        "log_loss": found.calibration.log_loss,
        "by_k": [{"k": k, **_plain(part)} for k, part in found.by_k.items()],
        "bins": [
            {"low": part.low, "high": part.high, "confidence": part.confidence, **_plain(part.share, "share")}
            for part in found.calibration.bins
        ],
    }


def _plain(part: Accuracy, name: str = "accuracy") -> dict[str, Any]:
    width = None if math.isnan(part.half_width) else part.half_width
    return {name: part.accuracy, "half_width": width, "pairs": part.pairs, "prompts": part.prompts}
