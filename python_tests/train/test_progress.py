"""Progress: rates, times, plain lines without a terminal, a bar with one."""

from __future__ import annotations

import sys

import pytest

from instructgpt_fast.train import progress as progress_module
from instructgpt_fast.train.progress import Progress, format_duration, format_rate


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [
    (12.34, "12.3 tokens/s"), (12_345, "12.3k tokens/s"), (2.5e6, "2.5M tokens/s"),
])
def test_rates(rate: float, text: str) -> None:
    assert format_rate(rate, "tokens") == text


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress_module, "time", made)
    return made


def test_plain_lines_with_rate_and_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("sft", enabled=True)
    progress.start(10, 40)
    for _ in range(10):
        clock.now += 2.0
        progress.show({"loss": 1.25, "epoch": 3})
        progress.advance(500.0)
    lines = capsys.readouterr().err.splitlines()
    # A line after 15 s at the earliest: 8 steps of 2 s; 22 steps of 2 s are left.
    assert lines == ["sft: 18/40 250 tokens/s, 0:44 left, loss 1.25"]


def test_nothing_is_shown_when_switched_off(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("sft", enabled=False)
    progress.start(0, 1)
    clock.now += 100
    progress.advance(1.0)
    progress.say("hello")
    assert capsys.readouterr().err == ""
    assert progress.rate() == pytest.approx(0.01)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress("reward", enabled=True)
    progress.start(0, 3)
    for _ in range(3):
        progress.advance(10.0)
    progress.say("a line [that] stays")
    progress.stop()
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "reward" in shown
    assert "a line [that] stays" in shown
