"""The whole InstructGPT method on real text that travels with the package, in one command.

Not covered: a useful assistant. The models are a few million parameters and read a few megabytes; what the run shows is
that every stage does what the paper says it does.
"""

from __future__ import annotations

from instructgpt_fast.quickstart.run import QuickstartConfig, QuickstartResult, run_quickstart

__all__ = ["QuickstartConfig", "QuickstartResult", "run_quickstart"]
