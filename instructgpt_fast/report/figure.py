"""One figure of the report: a drawing, a sentence for who cannot see it, and its numbers in a table.

Drawings are SVG whose colours are classes of the page's style, so they follow light, dark and print. They are drawn as
wide as a phone and stand side by side where there is room, so their text is never scaled down to be unreadable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from instructgpt_fast.report.axes import Axis, labels, shown, step_shown
from instructgpt_fast.report.markup import Markup, element, join
from instructgpt_fast.report.series import Series

__all__ = ["BOTTOM", "LEFT", "RIGHT", "TOP", "Drawing", "Figure", "absent", "described", "plain_table", "table_of"]

WIDTH, HEIGHT = 320, 200
LEFT, RIGHT, TOP, BOTTOM = 48, 312, 12, 168  # edges of the plot inside the drawing
TABLE_ROWS = 8  # records of one line in a table, besides its lowest and highest


@dataclass(frozen=True)
class Figure:
    """What a section shows: `summary` is what the drawing says, in words; `table` holds its numbers."""

    title: str
    unit: str
    drawing: Markup
    summary: str
    table: Markup
    legend: tuple[tuple[str, str], ...] = ()  # (class of the mark, its words)
    remark: str = ""

    def markup(self) -> Markup:
        """The figure as HTML."""
        keys = [element("span", text, class_=f"key {mark}") for mark, text in self.legend]
        return element(
            "figure",
            element("figcaption", element("h4", self.title), element("span", self.unit, class_="unit")),
            element("p", *keys, class_="legend") if keys else None,
            element(
                "svg", self.drawing, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
                aria_label=f"{self.title}. {self.summary}",
            ),
            element("p", self.remark, class_="remark") if self.remark else None,
            element("details", element("summary", "Numbers"), element("p", self.summary), self.table),
        )


def absent(title: str, why: str) -> Markup:
    """What stands in the place of a figure that has no numbers."""
    return element("div", element("h4", title), element("p", why), class_="absent")


class Drawing:
    """Collects the parts of one drawing."""

    def __init__(self, across: Axis, up: Axis) -> None:
        """across, up: the axes; `up` rises, so its first place is BOTTOM."""
        self.across, self.up = across, up
        self._parts: list[Markup] = []

    def add(self, name: str, *children: object, **attributes: object) -> None:
        """Put a part on top of the others; coordinates are rounded to a tenth."""
        rounded = {key: f"{value:.1f}" if isinstance(value, float) else value for key, value in attributes.items()}
        self._parts.append(element(name, *children, **rounded))

    def axes(self, label: str, *, percent: bool = False, across_percent: bool = False) -> None:
        """Grid and labels: the values on the left, `label` and its values below."""
        for place, words in _labelled(self.up, 5, percent):
            self.add("path", class_="grid", d=f"M{LEFT} {place:.1f}H{RIGHT}")
            self.add("text", words, class_="tick end", x=LEFT - 6, y=place + 3.5)
        for place, words in _labelled(self.across, 6, across_percent):
            self.add("path", class_="grid", d=f"M{place:.1f} {BOTTOM}v4")
            self.add("text", words, class_="tick mid", x=place, y=BOTTOM + 15)
        self.add("path", class_="axis", d=f"M{LEFT} {BOTTOM}H{RIGHT}")
        self.add("text", label, class_="tick end", x=RIGHT, y=HEIGHT - 3)

    def line(self, series: Series, mark: str) -> None:
        """A line through the finite values, broken where one is not."""
        parts: list[str] = []
        pen_down = False
        for step, value in zip(series.steps, series.values, strict=True):
            if np.isfinite(value):
                parts.append(f"{'L' if pen_down else 'M'}{self.across.place(step):.1f} {self.up.place(value):.1f}")
            pen_down = bool(np.isfinite(value))
        if parts:
            self.add("path", class_=f"line {mark}", d="".join(parts))

    def points(self, series: Series, mark: str) -> None:
        """A dot for each finite value, which tells its step and number."""
        dots = [
            element(
                "circle", element("title", f"step {step_shown(step)}: {shown(value, 4)}"),
                cx=f"{self.across.place(step):.1f}", cy=f"{self.up.place(value):.1f}",
            )
            for step, value in zip(series.finite.steps, series.finite.values, strict=True)
        ]
        self.add("g", *dots, class_=f"dots {mark}")

    def band(self, steps: np.ndarray, low: np.ndarray, high: np.ndarray, mark: str) -> None:
        """The area between two lines, f64 [N] each, in parts where one of them is not finite."""
        finite = np.isfinite(low) & np.isfinite(high)
        borders = np.flatnonzero(np.diff(finite)) + 1
        parts: list[str] = []
        for part in np.split(np.arange(len(steps)), borders):
            if len(part) and finite[part[0]]:
                edge = [*((steps[i], high[i]) for i in part), *((steps[i], low[i]) for i in reversed(part))]
                places = [f"{self.across.place(step):.1f} {self.up.place(value):.1f}" for step, value in edge]
                parts.append("M" + "L".join(places) + "Z")
        if parts:
            self.add("path", class_=f"band {mark}", d="".join(parts))

    def level(self, value: float) -> None:
        """A dashed line at a value."""
        self.add("path", class_="level", d=f"M{LEFT} {self.up.place(value):.1f}H{RIGHT}")

    def lost(self, steps: Iterable[float]) -> None:
        """A cross at the top for each step whose value is not finite."""
        for step in steps:
            x = self.across.place(step)
            told = element("title", f"step {step_shown(step)}: not finite")
            self.add("path", told, class_="cross", d=f"M{x - 3:.1f} {TOP - 8}l6 6m0 -6l-6 6")

    def markup(self) -> Markup:
        """All parts in order."""
        return join(*self._parts)


def described(label: str, series: Series) -> str:
    """First, last, lowest and highest value of a line, in words."""
    finite = series.finite
    if not len(finite):
        return f"{label}: no finite value in {len(series):,} records."
    first, last = float(finite.values[0]), float(finite.values[-1])
    words = f"{label}: {shown(first, 4)} at step {step_shown(finite.steps[0])}"
    if len(finite) > 1:
        words += f", {shown(last, 4)} at step {step_shown(finite.steps[-1])}"
        for word, place in (("lowest", int(np.argmin(finite.values))), ("highest", int(np.argmax(finite.values)))):
            if place not in (0, len(finite) - 1):
                words += f", {word} {shown(finite.values[place], 4)} at step {step_shown(finite.steps[place])}"
    lost = series.lost
    if len(lost):
        words += f"; not finite in {len(lost):,} of {len(series):,} records, first at step {step_shown(lost[0])}"
    return words + "."


def table_of(lines: Sequence[tuple[str, Series]], first: str = "step") -> Markup:
    """Records spread evenly over each line, its lowest and highest, and where it is not finite first, by step."""
    chosen: set[float] = set()
    by_step = [dict(zip(series.steps.tolist(), series.values.tolist(), strict=True)) for _, series in lines]
    for _, series in lines:
        if not len(series):
            continue
        even = np.unique(np.linspace(0, len(series) - 1, TABLE_ROWS).round().astype(int))
        chosen |= set(series.steps[even].tolist()) | set(series.lost[:1].tolist())
        if len(series.finite):
            chosen |= {float(series.finite.steps[pick(series.finite.values)]) for pick in (np.argmin, np.argmax)}
    rows = [
        [step_shown(step), *(shown(values[step], 5) if step in values else "" for values in by_step)]
        for step in sorted(chosen)
    ]
    return plain_table([first, *(label for label, _ in lines)], rows)


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """A table whose first column names the rows; it scrolls by itself where it is too wide."""
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    table = element("table", element("thead", head), element("tbody", *body))
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label="Table of numbers")


def _labelled(axis: Axis, count: int, percent: bool) -> list[tuple[float, str]]:
    """(place, words) of the round values of an axis."""
    values = axis.ticks(count)
    words = [f"{text} %" for text in labels([100 * value for value in values])] if percent else labels(values)
    return list(zip(map(axis.place, values), words, strict=True))
