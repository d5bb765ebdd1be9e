"""InstructGPT from raw text to an aligned model; names are imported on first use, so `import` itself is fast."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from instructgpt_fast._version import VERSION as __version__

# torch's threads wait for each other by spinning. Where another process holds one of the cores they spin through its
# whole time slice: measured, a 4-layer model on two cores fell from 7,500 to 530 tokens/s beside one busy process, and
# to 3,700 (its fair half) with a short spin, which costs nothing on an idle machine. GNU OpenMP reads this when torch
# is first imported; a user's own OMP_WAIT_POLICY or GOMP_SPINCOUNT stands.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if TYPE_CHECKING:
    from instructgpt_fast import errors, ops
    from instructgpt_fast.checkpoint import export_hugging_face, import_hugging_face
    from instructgpt_fast.data.hygiene import PrepareConfig, prepare
    from instructgpt_fast.doctor import doctor
    from instructgpt_fast.errors import (
        BackendError,
        CheckpointError,
        ConfigError,
        DataError,
        InstructGPTError,
        TrainingError,
    )
    from instructgpt_fast.evaluate import evaluate
    from instructgpt_fast.generate import generate
    from instructgpt_fast.label import LabelConfig, label
    from instructgpt_fast.report import ReportConfig, report
    from instructgpt_fast.serve import ServeConfig, serve
    from instructgpt_fast.tokenizer import Tokenizer
    from instructgpt_fast.train import (
        PpoConfig,
        PretrainConfig,
        RewardConfig,
        SftConfig,
        TrainResult,
        train,
    )

# Public name -> module that defines it.
_HOMES = {
    "PretrainConfig": "instructgpt_fast.train",
    "SftConfig": "instructgpt_fast.train",
    "RewardConfig": "instructgpt_fast.train",
    "PpoConfig": "instructgpt_fast.train",
    "PrepareConfig": "instructgpt_fast.data.hygiene",
    "prepare": "instructgpt_fast.data.hygiene",
    "ServeConfig": "instructgpt_fast.serve",
    "LabelConfig": "instructgpt_fast.label",
    "ReportConfig": "instructgpt_fast.report",
    "TrainResult": "instructgpt_fast.train",
    "Tokenizer": "instructgpt_fast.tokenizer",
    "import_hugging_face": "instructgpt_fast.checkpoint",
    "export_hugging_face": "instructgpt_fast.checkpoint",
    "InstructGPTError": "instructgpt_fast.errors",
    "ConfigError": "instructgpt_fast.errors",
    "DataError": "instructgpt_fast.errors",
    "CheckpointError": "instructgpt_fast.errors",
    "BackendError": "instructgpt_fast.errors",
    "TrainingError": "instructgpt_fast.errors",
}

# Modules that are public themselves; those named like a function can be called (callable_module.py).
_MODULES = ("train", "generate", "evaluate", "serve", "label", "report", "doctor", "ops", "errors")

__all__ = [
    "BackendError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "InstructGPTError",
    "LabelConfig",
    "PpoConfig",
    "PrepareConfig",
    "PretrainConfig",
    "ReportConfig",
    "RewardConfig",
    "ServeConfig",
    "SftConfig",
    "Tokenizer",
    "TrainResult",
    "TrainingError",
    "__version__",
    "doctor",
    "errors",
    "evaluate",
    "export_hugging_face",
    "generate",
    "import_hugging_face",
    "label",
    "ops",
    "prepare",
    "report",
    "serve",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"instructgpt_fast.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'instructgpt_fast' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
