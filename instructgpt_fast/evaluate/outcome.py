"""What running a task gives, and what every kind of task checks of its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from instructgpt_fast.checkpoint import Loaded
from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.evaluate.measure import Measure
from instructgpt_fast.model import GPT


@dataclass(frozen=True)
class Outcome:
    """Results of one task on one checkpoint.

    measures: in the order of the table. records: one JSON object an item, for --records.
    about: what was measured on and with, for --output: sha256 of the data, versions of the scoring packages, ...
    """

    measures: Sequence[Measure]
    records: Sequence[Mapping[str, Any]] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


def language_model(task: str, loaded: Loaded) -> GPT:
    """The language model of a checkpoint; raises CheckpointError for a reward model."""
    if not isinstance(loaded.model, GPT):
        raise CheckpointError(f"{task}: {loaded.path} must hold a language model, got a reward model; name another.")
    return loaded.model
