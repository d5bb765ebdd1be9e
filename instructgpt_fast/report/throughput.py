"""How fast a run was, and what share that is of what its machine was seen to do."""

from __future__ import annotations

from instructgpt_fast.report.axes import shown
from instructgpt_fast.report.lines import Line, Look, line_figure
from instructgpt_fast.report.markup import Markup, element
from instructgpt_fast.report.read import RunFiles
from instructgpt_fast.report.series import Series, series_of

__all__ = ["rate_of", "share_of_ceiling", "throughput"]


def _unit(run: RunFiles) -> str:
    return run.record.unit if run.record is not None else "tokens"


def rate_of(run: RunFiles) -> Series:
    """The recorded rate, in units of work a second; each record is the mean since the process began."""
    return series_of(run.records, f"{_unit(run)}_per_second")


def share_of_ceiling(run: RunFiles) -> tuple[float | None, str]:
    """(share of the measured ceiling, or None; how it was found, or why it is not known)."""
    finite = rate_of(run).finite
    record = run.record
    if record is None:
        return None, "not measured: the run has no run.json (an earlier version, or it stopped at once)"
    if not len(finite):
        return None, "not measured: no rate was recorded"
    if record.flops_per_unit is None:
        return None, "not measured: the work of a token was not counted (the run has not finished)"
    done = float(finite.values[-1]) * record.flops_per_unit
    said = _flops(done)
    if record.ceiling is None:
        return None, f"{said}; its share is not measured: the run was too short, or the device's rate is not known"
    share = done / record.ceiling.flops_per_second
    return share, (
        f"{said} of {_flops(record.ceiling.flops_per_second)}, the largest rate of a matrix product seen in the "
        f"same process ({record.ceiling.how})"
    )


def _flops(rate: float) -> str:
    words = shown(rate)
    return f"{words[:-1]} {words[-1]}FLOP/s" if words[-1].isalpha() else f"{words} FLOP/s"


def throughput(run: RunFiles) -> list[Markup]:
    """The rate as a figure, and the share of the ceiling in words."""
    unit = _unit(run)
    rate = rate_of(run)
    share, how = share_of_ceiling(run)
    figure = line_figure(
        "Throughput", f"{unit} a second, mean since the start", [Line(f"{unit}/s", rate)],
        "metrics.jsonl holds no rate.", Look(hold=(0.0,), smooth=False),
    )
    number = "–" if share is None else f"{100 * share:.1f} %"
    formula = run.record.flops_formula if run.record is not None else None
    words = element(
        "div", element("h4", "Share of the ceiling"), element("p", number, class_="big"),
        element("p", how[0].upper() + how[1:] + "."),
        element("details", element("summary", "How work is counted"), element("p", formula)) if formula else None,
        class_="stated",
    )
    return [figure, words]
