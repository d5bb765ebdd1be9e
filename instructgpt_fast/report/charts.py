"""Figures that are no lines along the steps: the frontier, shares of time, reliability, accuracy by K."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from instructgpt_fast.report.axes import Axis, axis_over, shown, step_shown
from instructgpt_fast.report.figure import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Drawing,
    Figure,
    absent,
    plain_table,
)
from instructgpt_fast.report.markup import Markup, element
from instructgpt_fast.report.series import Series

__all__ = ["by_k_figure", "frontier_figure", "reliability_figure", "time_figure"]

STEPS = 8  # colours of the scale from early to late
FRONTIER_POINTS = 160
BARS = 48


def frontier_figure(kl: Series, reward: Series) -> Markup:
    """Reward over sqrt(KL), coloured by step: how much reward was bought for how far a walk from the reference.

    With a fixed reference the reward rises about linearly in sqrt(KL) until it is over-optimised (Gao et al. 2022,
    arXiv:2210.10760, section 3). kl: nats per response. A KL below 0, which an estimate can be, stands left of 0.
    """
    title, unit = "Reward against KL", "score over √KL to the reference; up and left is better"
    scores = dict(zip(reward.finite.steps.tolist(), reward.finite.values.tolist(), strict=True))
    pairs = np.array([
        (step, value, scores[step])
        for step, value in zip(kl.finite.steps.tolist(), kl.finite.values.tolist(), strict=True) if step in scores
    ])
    if not len(pairs):
        return absent(title, "No record holds both objective/kl and objective/scores, which every PPO run writes.")
    even = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), FRONTIER_POINTS)).round().astype(int))
    chosen = pairs[even]
    roots = np.sign(chosen[:, 1]) * np.sqrt(np.abs(chosen[:, 1]))
    drawing = Drawing(
        axis_over(float(roots.min()), float(roots.max()), LEFT, RIGHT, hold=(0.0,)),
        axis_over(float(chosen[:, 2].min()), float(chosen[:, 2].max()), BOTTOM, TOP),
    )
    drawing.axes("√KL, nats per response")
    drawing.line(Series(roots, chosen[:, 2]), "faint")
    for place, ((step, nats, score), root) in enumerate(zip(chosen, roots, strict=True)):
        shade = min(STEPS - 1, place * STEPS // max(len(chosen) - 1, 1))
        told = element("title", f"step {step_shown(step)}: KL {shown(nats, 4)} nats, score {shown(score, 4)}")
        drawing.add(
            "circle", told, class_=f"step s{shade}", cx=drawing.across.place(root), cy=drawing.up.place(score), r=3.4
        )
    ends = [f"step {step_shown(chosen[i, 0])}: KL {shown(chosen[i, 1], 4)} nats, score {shown(chosen[i, 2], 4)}"
            for i in ((0, -1) if len(chosen) > 1 else (0,))]
    rows = [
        [step_shown(step), shown(nats, 5), shown(score, 5)] for step, nats, score in chosen[_spread(len(chosen), 12)]
    ]
    thin = f" {len(chosen)} of {len(pairs):,} records are drawn." if len(chosen) < len(pairs) else ""
    return Figure(
        title, unit, drawing.markup(), f"From {' to '.join(ends)}.{thin}",
        plain_table(["step", "KL, nats", "score"], rows), (("scale early", "first step"), ("scale late", "last step")),
    ).markup()


def time_figure(parts: Sequence[tuple[str, Series]]) -> Markup:
    """Seconds of each step by part, one on top of the other; neighbouring steps are averaged where they are many."""
    title = "Time of an iteration"
    parts = [(name, series.finite) for name, series in parts if len(series.finite)]
    if not parts:
        return absent(title, "No record holds time/rollout, time/score or time/update, which every PPO run writes.")
    steps = sorted(set.intersection(*(set(series.steps.tolist()) for _, series in parts)))
    if not steps:
        return absent(title, "No record holds all parts of an iteration's time.")
    table = _aligned(parts, steps)
    groups = np.array_split(np.arange(len(steps)), min(len(steps), BARS))
    means = np.array([[row[group].mean() for group in groups] for row in table])
    total = table.sum(axis=1)
    drawing = Drawing(
        Axis(0, max(len(groups), 6), LEFT, RIGHT), axis_over(0.0, float(means.sum(0).max()), BOTTOM, TOP)
    )
    _time_axes(drawing, steps, groups)
    for column, group in enumerate(groups):
        base = 0.0
        for mark, (name, _), seconds in zip(("c1", "c2", "c3"), parts, means[:, column], strict=False):
            y, top = drawing.up.place(base), drawing.up.place(base + seconds)
            x = drawing.across.place(column)
            width = (drawing.across.place(1) - drawing.across.place(0)) * 0.84
            told = element("title", f"step {step_shown(steps[group[0]])}: {name} {shown(seconds)} s")
            drawing.add("rect", told, class_=f"bar {mark}", x=x, y=top, width=width, height=max(y - top, 0.0))
            base += seconds
    shares = [f"{name} {100 * part / total.sum():.0f} %" for (name, _), part in zip(parts, total, strict=True)]
    rows = [[name, shown(part), f"{100 * part / total.sum():.1f} %", shown(part / len(steps))]
            for (name, _), part in zip(parts, total, strict=True)]
    each = f", each bar the mean of about {len(groups[0])} steps" if len(groups) < len(steps) else ""
    return Figure(
        title, f"seconds{each}", drawing.markup(), f"{', '.join(shares)} of {shown(float(total.sum()))} s.",
        plain_table(["part", "seconds in all", "share", "seconds a step"], rows),
        tuple(zip(("b1", "b2", "b3"), shares, strict=False)),
    ).markup()


def _aligned(parts: Sequence[tuple[str, Series]], steps: Sequence[float]) -> np.ndarray:
    maps = [dict(zip(series.steps.tolist(), series.values.tolist(), strict=True)) for _, series in parts]
    return np.array([[values[step] for step in steps] for values in maps])


def _time_axes(drawing: Drawing, steps: Sequence[float], groups: Sequence[np.ndarray]) -> None:
    for value in drawing.up.ticks():
        y = drawing.up.place(value)
        drawing.add("path", class_="grid", d=f"M{LEFT} {y:.1f}H{RIGHT}")
        drawing.add("text", shown(value), class_="tick end", x=LEFT - 6, y=y + 3.5)
    for column in range(0, len(groups), -(-len(groups) // 6)):
        x = (drawing.across.place(column) + drawing.across.place(column + 0.84)) / 2
        drawing.add("text", step_shown(steps[groups[column][0]]), class_="tick mid", x=x, y=BOTTOM + 15)
    drawing.add("path", class_="axis", d=f"M{LEFT} {BOTTOM}H{RIGHT}")
    drawing.add("text", "step", class_="tick end", x=RIGHT, y=BOTTOM + 29)


def reliability_figure(evaluation: Mapping[str, Any]) -> Markup:
    """Share of pairs whose preferred answer the labeler preferred too, over the probability that the model gave it."""
    bins = evaluation["bins"]
    drawing = Drawing(Axis(0.5, 1.0, LEFT, RIGHT), Axis(min(0.4, *(b["share"] for b in bins)), 1.0, BOTTOM, TOP))
    drawing.axes("probability that the model gives", percent=True, across_percent=True)
    most = max(part["pairs"] for part in bins)
    for part in bins:
        height = 44.0 * part["pairs"] / most
        left, right = drawing.across.place(part["low"]), drawing.across.place(part["high"])
        told = element("title", f"{part['pairs']:,} pairs")
        drawing.add("rect", told, class_="count", x=left + 1, y=BOTTOM - height, width=right - left - 2, height=height)
    drawing.add("path", class_="level", d=f"M{LEFT} {drawing.up.place(0.5):.1f}L{RIGHT} {drawing.up.place(1.0):.1f}")
    drawing.line(_series((part["confidence"], part["share"]) for part in bins), "c1")
    for part in bins:
        x, share, half = drawing.across.place(part["confidence"]), part["share"], part["half_width"]
        if half is not None:
            low, high = drawing.up.place(max(share - half, 0.0)), drawing.up.place(min(share + half, 1.0))
            drawing.add("path", class_="whisker c1", d=f"M{x:.1f} {low:.1f}V{high:.1f}")
        told = element("title", f"said {part['confidence']:.0%}, was {share:.0%} of {part['pairs']:,} pairs")
        drawing.add("circle", told, class_="dot c1", cx=x, cy=drawing.up.place(share), r=3.4)
    error = evaluation["expected_calibration_error"]
    rows = [[f"{b['low']:.0%} to {b['high']:.0%}", f"{b['confidence']:.1%}", _with_width(b["share"], b["half_width"]),
             f"{b['pairs']:,}"] for b in bins]
    return Figure(
        "Calibration", "share in the labeler’s order", drawing.markup(),
        f"Expected calibration error {100 * error:.1f} points, log loss {shown(evaluation['log_loss'])} nats (a coin: "
        f"0.693), on {evaluation['pairs']:,} pairs.",
        plain_table(["bin", "the model says", "the labeler agrees", "pairs"], rows),
        (("c1 dots", "agreement, with 95 % interval"), ("dashed", "perfect"), ("counts", "pairs")),
        f"Expected calibration error {100 * error:.1f} points.",
    ).markup()


def by_k_figure(rows: Sequence[tuple[str, float, float | None, int | None]]) -> Markup:
    """Accuracy of each K and of all pairs as dots with their 95 % intervals. rows: (name, share, half width, pairs)."""
    ends = [edge for _, share, half, _ in rows for edge in (share - (half or 0.0), share + (half or 0.0))]
    low, high = min(0.5, *ends), max(ends)
    drawing = Drawing(
        axis_over(max(low, 0.0), min(high, 1.0), LEFT + 14, RIGHT, hold=(0.5,)), Axis(0, len(rows), TOP + 4, BOTTOM)
    )
    for value in drawing.across.ticks(6):
        x = drawing.across.place(value)
        drawing.add("path", class_="grid", d=f"M{x:.1f} {TOP}V{BOTTOM}")
        drawing.add("text", f"{shown(100 * value)} %", class_="tick mid", x=x, y=BOTTOM + 15)
    x = drawing.across.place(0.5)
    drawing.add("path", class_="level", d=f"M{x:.1f} {TOP}V{BOTTOM}")
    drawing.add("text", "pairs in the labeler’s order; dashed: chance", class_="tick end", x=RIGHT, y=BOTTOM + 29)
    for place, (name, share, half, _) in enumerate(rows):
        y = drawing.up.place(place + 0.5)
        drawing.add("text", name, class_="tick end", x=LEFT + 6, y=y + 3.5)
        if half is not None:
            left, right = (drawing.across.place(edge) for edge in (share - half, share + half))
            drawing.add("path", class_="whisker c1", d=f"M{left:.1f} {y:.1f}H{right:.1f}")
        told = element("title", f"{name}: {_with_width(share, half)}")
        drawing.add("circle", told, class_="dot c1", cx=drawing.across.place(share), cy=y, r=3.6)
    table = [
        [name, _with_width(share, half), "" if pairs is None else f"{pairs:,}"] for name, share, half, pairs in rows
    ]
    summary = "; ".join(f"{name}: {_with_width(share, half)}" for name, share, half, _ in rows)
    return Figure(
        "Accuracy by K", "answers of a prompt; 95 % intervals", drawing.markup(), f"{summary}.",
        plain_table(["K", "accuracy", "pairs"], table),
    ).markup()


def _with_width(share: float, half: float | None) -> str:
    return f"{share:.1%}" if half is None else f"{share:.1%} ± {half:.1%}"


def _spread(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _series(pairs: Any) -> Series:
    table = np.array(list(itertools.chain(pairs)), dtype=np.float64).reshape(-1, 2)
    return Series(table[:, 0], table[:, 1])
