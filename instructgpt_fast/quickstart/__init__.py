"""The whole InstructGPT method on real text that travels with the package, in one command.

Not covered: a useful assistant. The models are a few million parameters and read a few megabytes; what the run shows is
that every stage does what the paper says it does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructgpt_fast.quickstart.run import QuickstartConfig, QuickstartResult, run_quickstart

__all__ = ["QuickstartConfig", "QuickstartResult", "run_quickstart"]


def __getattr__(name: str) -> Any:
    # Reading the texts alone needs none of the training code.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.run"), name)
