"""Options of the report."""

from __future__ import annotations

from typing import ClassVar

from instructgpt_fast.config import Options, options_class

__all__ = ["ReportConfig"]


@options_class()
class ReportConfig(Options):
    """Which run to report on, and where the page goes."""

    stage: ClassVar[str] = "report"

    run: str
    """Directory of a run, or a folder of several, which become sections of one page."""
    output: str | None = None
    """HTML file to write; none is report.html in the directory."""
    samples: int = 8
    """Prompts shown with their answers before and after training; 0 shows none."""

    def check(self) -> None:
        """Refuse a negative number of samples."""
        self.require("samples must be at least 0", self.samples >= 0, samples=self.samples)
