"""What is drawn of a series, where it stands and how it is labelled; markup that cannot be broken from inside."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from instructgpt_fast.report.axes import Axis, axis_over, labels, shown
from instructgpt_fast.report.markup import Markup, element, join
from instructgpt_fast.report.series import Series, envelope, series_of, smoothed, thinned


def made(values: list[float]) -> Series:
    return Series(np.arange(1.0, len(values) + 1), np.array(values, dtype=np.float64))


def test_text_that_stands_for_a_number_is_one() -> None:
    records = [{"step": 1, "loss": 2.5}, {"step": 2, "loss": "nan"}, {"step": 3, "loss": "inf"}, {"step": 3, "x": 1},
               {"step": 4, "loss": "soon"}, {"step": 5, "loss": True}, {"step": 6, "loss": 3}]
    found = series_of(records, "loss")
    assert found.steps.tolist() == [1, 2, 3, 6]
    assert found.values.tolist()[::3] == [2.5, 3.0]
    assert found.lost.tolist() == [2, 3]
    assert len(series_of(records, "absent")) == 0


def test_thinning_keeps_ends_extremes_and_what_is_lost() -> None:
    rng = random.Random(0)
    values = [rng.gauss(0, 1) for _ in range(100_000)]
    values[1_234], values[77_777], values[50_000] = 99.0, -98.0, math.nan
    whole = made(values)
    thin = thinned(whole, 360)
    assert len(thin) <= 3 * 180 + 2
    assert (thin.steps[0], thin.steps[-1]) == (1, 100_000)
    assert {99.0, -98.0} <= set(thin.values.tolist())
    assert thin.lost.tolist() == [50_001]
    # Nothing is made up, and each stretch keeps its own extremes.
    at = dict(zip(whole.steps.tolist(), values, strict=True))
    assert all(at[step] == value for step, value in zip(thin.steps.tolist(), thin.values.tolist(), strict=True)
               if not math.isnan(value))
    for stretch in np.array_split(np.arange(100_000), 180):
        inside = thin.values[np.isin(thin.steps, whole.steps[stretch])]
        assert np.nanmax(inside) == np.nanmax(whole.values[stretch])
        assert np.nanmin(inside) == np.nanmin(whole.values[stretch])
    assert thinned(made([1.0, 2.0]), 360).values.tolist() == [1.0, 2.0]


def test_the_envelope_holds_every_record() -> None:
    rng = np.random.default_rng(0)
    values, steps = rng.normal(size=5000), np.arange(5000.0)
    values[100:150] = math.nan
    values[3000] = 50.0
    at, low, high = envelope(steps, values - 1, values + 1, 360)
    assert len(at) == len(low) == len(high) == 180
    assert (low.min(), high.max()) == (np.nanmin(values) - 1, 51.0)
    assert np.isinf(low[4]), "the fifth stretch of 28 records, from 112 on, holds no number"
    small = np.array([1.0, 2.0])
    assert envelope(small, small, small)[0] is small


def test_a_series_that_is_lost_as_a_whole_is_thinned_too() -> None:
    assert len(thinned(made([math.nan] * 1000), 100).lost) == 51


def test_the_moving_mean() -> None:
    assert smoothed(made([1.0] * 59)) is None
    values = [float(i % 7) for i in range(500)]
    mean, width = smoothed(made(values))  # type: ignore[misc]
    assert width == 21
    assert mean.values[250] == pytest.approx(sum(values[240:261]) / 21)
    assert mean.values[0] == pytest.approx(sum(values[:11]) / 11)


@pytest.mark.parametrize("value, text", [
    (0.0, "0"), (-0.0, "0"), (1234.4, "1,234"), (-0.5, "−0.5"), (2.5e-5, "2.5e−5"), (1e-5, "1e−5"), (12_345, "12.3k"),
    (2.6e6, "2.6M"), (3e14, "300T"), (math.nan, "nan"), (math.inf, "inf"), (0.001, "0.001"), (99.96, "100"),
])
def test_numbers_as_people_write_them(value: float, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    "low, high", [(0.0, 1.0), (0.9998, 1.0003), (-17.0, 0.2), (1e-6, 3e-6), (0.0, 95.0), (4.0, 4.0)]
)
def test_labels_are_round_inside_and_all_different(low: float, high: float) -> None:
    axis = axis_over(low, high, 168, 12)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 7
    assert all(axis.low - 1e-12 <= tick <= axis.high + 1e-12 for tick in ticks)
    assert len(set(labels(ticks))) == len(ticks)
    assert axis.low <= low <= high <= axis.high


def test_places() -> None:
    axis = Axis(1.0, 100.0, 0.0, 200.0, log=True)
    assert [axis.place(value) for value in (1, 10, 100, 1000)] == pytest.approx([0, 100, 200, 200])
    assert axis.ticks() == [1, 2, 5, 10, 20, 50, 100]
    assert Axis(0.0, 4.0, 168.0, 12.0).place(1.0) == pytest.approx(129)


def test_whatever_is_not_markup_is_escaped() -> None:
    assert element("p", "<b>&", title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;&amp;</p>'
    assert element("input", class_="a", checked=True, hidden=False, id=None) == '<input class="a" checked>'
    assert join("a<", Markup("<br>"), None, 3) == "a&lt;<br>3"
    assert element("p", "a\x00b\x1b\ud800") == "<p>a\ufffdb\ufffd\ufffd</p>"
    "".join(element("p", "\ud83d")).encode("utf-8")
