"""Progress of a stage on standard error: a bar with rate and time left, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["Progress", "format_duration", "format_rate"]

PLAIN_SECONDS = 15.0  # a log file gets a line this often at most
SHOWN = ("loss", "eval_loss", "accuracy", "objective/rlhf_reward", "objective/kl")


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_rate(per_second: float, unit: str) -> str:
    """A rate with three digits and k or M: "12.3k tokens/s"."""
    for limit, factor, letter in ((1e6, 1e6, "M"), (1e3, 1e3, "k")):
        if per_second >= limit:
            return f"{per_second / factor:.3g}{letter} {unit}/s"
    return f"{per_second:.3g} {unit}/s"


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Progress:
    """Shows how far a stage is; `advance` after each step, `say` for a line that stays."""

    def __init__(self, stage: str, *, enabled: bool, unit: str = "tokens") -> None:
        """stage: the name shown; enabled: False shows nothing; unit: what `advance` counts besides steps."""
        self._stage, self._enabled, self._unit = stage, enabled, unit
        self._done = self._total = 0
        self._work = 0.0
        self._started = self._printed = time.monotonic()
        self._shown = ""
        self._bar: Any = None
        self._task: Any = None

    def start(self, done: int, total: int) -> None:
        """Begin at step `done` of `total`."""
        self._done, self._total, self._work = done, total, 0.0
        self._first = done
        self._started = self._printed = time.monotonic()
        if not self._enabled or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"), console=Console(stderr=True),
        )
        self._task = self._bar.add_task(self._stage, total=total, completed=done, text="")
        self._bar.start()

    def advance(self, work: float) -> None:
        """Count one more step, which did `work` units (tokens)."""
        self._done += 1
        self._work += work
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, text=self._text())
        elif time.monotonic() - self._printed >= PLAIN_SECONDS or self._done == self._total:
            self._printed = time.monotonic()
            _write(f"{self._stage}: {self._done}/{self._total} {self._text()}")

    def show(self, metrics: Mapping[str, float | int | str]) -> None:
        """Put the best-known metrics beside the bar."""
        shown = [f"{n.split('/')[-1]} {metrics[n]:.4g}" for n in SHOWN if isinstance(metrics.get(n), float)]
        if shown:
            self._shown = ", ".join(shown)

    def say(self, message: str) -> None:
        """Print a line that stays."""
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        else:
            _write(f"{self._stage}: {message}")

    def rate(self, more: float = 0.0) -> float:
        """Units of work per second since `start`; more: work done that `advance` has not counted yet."""
        return (self._work + more) / max(time.monotonic() - self._started, 1e-9)

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _text(self) -> str:
        passed = time.monotonic() - self._started
        left = passed / max(self._done - self._first, 1) * (self._total - self._done)
        parts = [format_rate(self.rate(), self._unit), f"{format_duration(left)} left", self._shown]
        return ", ".join(part for part in parts if part)
