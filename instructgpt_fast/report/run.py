"""`report`: reads a run, or a folder of runs, and writes one HTML file about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.files import atomic_write
from instructgpt_fast.report.options import ReportConfig

__all__ = ["report"]

REPORT_FILE = "report.html"


def report(run: Any, **options: Any) -> Path:
    """Write the report on a run and return its path.

    run: a run directory, a folder of several, what `train` returned, or a `ReportConfig`. options: those of
    `ReportConfig`. Raises ConfigError when there is no run, or the file cannot be written.
    """
    if isinstance(run, ReportConfig):
        config = run
    else:
        config = ReportConfig(run=os.fspath(getattr(run, "run_dir", run)), **options)
    from instructgpt_fast.report.page import document
    from instructgpt_fast.report.read import find_runs, read_run_files

    folder = Path(config.run)
    runs = [read_run_files(path) for path in find_runs(folder)]
    order = ("pretrain", "sft", "reward", "ppo")
    runs.sort(key=lambda found: order.index(found.stage) if found.stage in order else len(order))
    text = document(runs, folder.resolve().name, samples=config.samples)
    target = folder / REPORT_FILE if config.output is None else Path(config.output)
    return atomic_write(target, text, error=ConfigError)
