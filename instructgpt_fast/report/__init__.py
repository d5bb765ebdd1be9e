"""The report on a run: one HTML file with its figures, its samples and what went wrong; no network, no script."""

from instructgpt_fast.callable_module import make_callable
from instructgpt_fast.report.options import ReportConfig
from instructgpt_fast.report.run import report

__all__ = ["ReportConfig", "report"]

make_callable(__name__, report)
