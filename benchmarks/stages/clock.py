"""Times the steps of a stage in its process, and notes the peak of its memory after each."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path


def peak_bytes() -> int:
    """Highest resident memory of this process so far.

    getrusage also remembers the process that started this one, so the kernel's own figure for this program comes first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@dataclass
class StepClock:
    """Seconds and real tokens (no padding) of every step; the time between two steps belongs to the later one."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    peak: int = 0
    started: float = 0.0

    def begin(self) -> None:
        """Start the first step."""
        self.started = time.perf_counter()

    def step_done(self, tokens: int) -> None:
        """End a step that worked on so many tokens and start the next."""
        now = time.perf_counter()
        self.seconds.append(now - self.started)
        self.tokens.append(tokens)
        self.peak = peak_bytes()
        self.started = time.perf_counter()
