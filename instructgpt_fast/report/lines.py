"""Figures of metrics along the steps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from instructgpt_fast.report.axes import axis_over
from instructgpt_fast.report.figure import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Drawing,
    Figure,
    absent,
    described,
    table_of,
)
from instructgpt_fast.report.markup import Markup
from instructgpt_fast.report.series import Series, envelope, smoothed, thinned

__all__ = ["Line", "Look", "line_figure"]

MARKS = ("c1", "c2", "c3", "c4")
DOTTED_TO = 32  # records up to which every one gets a dot
DOMINATED = 10.0  # times the spread of the middle: from there on a linear axis shows the outliers alone


@dataclass(frozen=True)
class Line:
    """One line of a figure: its words, its records, and half the width of its 95 % interval where that is known."""

    label: str
    series: Series
    half_width: Series | None = None


@dataclass(frozen=True)
class Look:
    """How a figure is drawn. level: a value worth a dashed line, with its words. hold: values the axis always shows."""

    log: bool = False
    percent: bool = False
    level: tuple[float, str] | None = None
    hold: tuple[float, ...] = ()
    smooth: bool = True
    across: str = "step"


def line_figure(title: str, unit: str, lines: list[Line], why: str, look: Look | None = None) -> Markup:
    """The lines in one drawing; those without a record are named instead, with `why` when there is none at all."""
    look = look or Look()
    there = [line for line in lines if len(line.series)]
    if not any(len(line.series.finite) for line in there):
        if there:
            why = " ".join(described(line.label, line.series) for line in there)
        return absent(title, why)
    missing = [line.label for line in lines if not len(line.series)]
    remark = f"Not recorded: {', '.join(missing)}." if missing else ""
    drawing, smooth = _drawn(there, look)
    names = [(mark, f"{line.label}{smooth.get(line.label, '')}") for mark, line in zip(MARKS, there, strict=False)]
    summary = " ".join(described(line.label, line.series) for line in there)
    table = table_of([(line.label, line.series) for line in there], look.across)
    names = names if len(lines) > 1 or smooth else []
    if look.level is not None and look.level[1]:
        names.append(("dashed", look.level[1]))
    return Figure(title, unit, drawing.markup(), summary, table, tuple(names), remark).markup()


def _drawn(lines: list[Line], look: Look) -> tuple[Drawing, dict[str, str]]:
    """The drawing, and what to add to the words of the lines that got a moving mean."""
    finite = [line.series.finite for line in lines if len(line.series.finite)]
    values = np.concatenate([series.values for series in finite])
    for line in lines:
        if line.half_width is not None:
            width = np.where(np.isfinite(line.half_width.values), line.half_width.values, 0.0)
            values = np.concatenate([values, line.series.values - width, line.series.values + width])
            values = values[np.isfinite(values)]
    steps = np.concatenate([line.series.steps for line in lines])
    hold = (*look.hold, look.level[0]) if look.level is not None and _near(look.level[0], values) else look.hold
    log = (look.log and bool((values > 0).all())) or _dominated(values)
    up = axis_over(float(values.min()), float(values.max()), BOTTOM, TOP, log=log, hold=hold)
    across = axis_over(float(steps.min()), float(steps.max()), LEFT, RIGHT)
    if len(np.unique(steps)) > 1:  # a line begins at the edge; one record stands in the middle
        across = type(across)(float(steps.min()), float(steps.max()), LEFT, RIGHT)
    drawing = Drawing(across, up)
    drawing.axes(look.across, percent=look.percent)
    if look.level is not None and up.low <= look.level[0] <= up.high:
        drawing.level(look.level[0])
    smooth: dict[str, str] = {}
    for mark, line in zip(itertools.cycle(MARKS), lines):
        if line.half_width is not None:
            width = np.where(np.isfinite(line.half_width.values), line.half_width.values, 0.0)
            drawing.band(*envelope(line.series.steps, line.series.values - width, line.series.values + width), mark)
        mean = smoothed(line.series) if look.smooth else None
        drawing.line(thinned(line.series), f"{mark} raw" if mean else mark)
        if mean is not None:
            drawing.line(thinned(mean[0]), mark)
            smooth[line.label] = f" (bold: mean of {mean[1]:,} records)"
        if len(line.series) <= DOTTED_TO:
            drawing.points(line.series, mark)
        drawing.lost(thinned(Series(line.series.lost, line.series.lost), 40).steps)
    return drawing, smooth


def _near(level: float, values: np.ndarray) -> bool:
    """Whether an axis that also holds `level` still shows the values: they fill at least a third of it."""
    low, high = float(values.min()), float(values.max())
    room = max(high, level) - min(low, level)
    return room == 0 or high - low >= room / 3 or min(abs(level - low), abs(level - high)) < abs(level) / 2


def _dominated(values: np.ndarray) -> bool:
    """Whether a few values are so far from the rest that a linear axis would show nothing else; all positive."""
    if len(values) < 8 or not (values > 0).all():
        return False
    low, high = np.quantile(values, [0.1, 0.9])
    return bool(values.max() - values.min() > DOMINATED * (high - low) and values.max() > DOMINATED * high)
