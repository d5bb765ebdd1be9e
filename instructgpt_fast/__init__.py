"""InstructGPT from raw text to an aligned model; names are imported on first use, so `import` itself is fast."""

from __future__ import annotations

import importlib
from typing import Any

from instructgpt_fast._version import VERSION as __version__

# Public name -> module that defines it.
_HOMES = {
    "train": "instructgpt_fast.train",
    "PretrainConfig": "instructgpt_fast.train",
    "SftConfig": "instructgpt_fast.train",
    "RewardConfig": "instructgpt_fast.train",
    "PpoConfig": "instructgpt_fast.train",
    "TrainResult": "instructgpt_fast.train",
    "generate": "instructgpt_fast.generate",
    "evaluate": "instructgpt_fast.evaluate",
    "doctor": "instructgpt_fast.doctor",
    "Tokenizer": "instructgpt_fast.tokenizer",
    "InstructGPTError": "instructgpt_fast.errors",
    "ConfigError": "instructgpt_fast.errors",
    "DataError": "instructgpt_fast.errors",
    "CheckpointError": "instructgpt_fast.errors",
    "BackendError": "instructgpt_fast.errors",
    "TrainingError": "instructgpt_fast.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'instructgpt_fast' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
