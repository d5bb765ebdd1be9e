"""Damage of every kind in a run's files: the report is written all the same, and stays whole."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import instructgpt_fast as igf

from . import runs
from .document import parsed

STRANGE: tuple[Any, ...] = (
    0, 0.0, -1, 1e-300, 1e300, -1e300, 5e-324, "nan", "inf", "-inf", "x", None, True, [1], {"a": 1}, 1.0, 2**70,
)
WRITERS = (runs.write_ppo, runs.write_language_model, runs.write_reward)


def damaged(value: Any, rng: random.Random, often: float) -> Any:
    """JSON in which some values are strange and some are gone."""
    if rng.random() < often:
        return rng.choice(STRANGE)
    if isinstance(value, dict):
        return {key: damaged(item, rng, often) for key, item in value.items() if rng.random() > often / 4}
    if isinstance(value, list):
        return [damaged(item, rng, often) for item in value if rng.random() > often / 4]
    return value


def damage(folder: Path, rng: random.Random) -> None:
    for path in sorted(folder.glob("*.json*")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] \
            if path.suffix == ".jsonl" else [json.loads(path.read_text(encoding="utf-8"))]
        often = rng.choice([0.0, 0.01, 0.1])
        lines = [json.dumps(damaged(row, rng, often)) + "\n" for row in rows]
        if rng.random() < 0.2:
            rng.shuffle(lines)
        text = "".join(lines)
        path.write_text(text[:rng.randrange(len(text))] if rng.random() < 0.2 else text, encoding="utf-8")


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_run_still_has_a_report(write: Any, seed: int, tmp_path: Path) -> None:
    rng = random.Random(f"{write.__name__}{seed}")
    for steps in (1, 2, 40):
        folder = write(tmp_path / str(steps), steps=steps)
        damage(folder, rng)
        page = parsed(igf.report(folder).read_text(encoding="utf-8"))
        assert page.all("h2")
        assert not [path for path in page.all("path") if "nan" in str(path.attributes["d"])]
