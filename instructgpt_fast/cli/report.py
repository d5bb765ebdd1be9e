"""The command `report`."""

from __future__ import annotations

import sys
from typing import Annotated

import tyro

from instructgpt_fast.config import options_class
from instructgpt_fast.report.options import ReportConfig

__all__ = ["Report", "write_report"]


@options_class()
class Report(ReportConfig):
    """One HTML file about a run, or about each run in a folder: figures, samples, diagnosis. It needs no network."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of a run, or a folder of several, which become sections of one page."""


def write_report(options: Report) -> None:
    """Write the file, and print where it is."""
    from instructgpt_fast.report import report

    sys.stdout.write(f"{report(options)}\n")
