"""The errors this package raises on purpose; every one of them derives from `InstructGPTError`.

A message reads "who: rule with names and numbers, got what; what to do.". Op doors raise the built-in
`TypeError` and `ValueError` instead, because a wrong tensor is a programming mistake and not a run-time condition.
"""

from __future__ import annotations

import os

__all__ = [
    "BackendError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "InstructGPTError",
    "TrainingError",
]


class InstructGPTError(Exception):
    """Base of every error raised deliberately by this package."""


class ConfigError(InstructGPTError):
    """An option is unknown, out of range, or contradicts another one."""


class DataError(InstructGPTError):
    """An input file or record cannot be used; the message begins with its path and line when they are known."""

    def __init__(
        self, message: str, path: str | os.PathLike[str] | None = None, line: int | None = None
    ) -> None:
        """Keep the rule that was broken (`message`), the file (`path`) and the line counted from 1 (`line`)."""
        self.message = message
        self.path = None if path is None else os.fspath(path)
        self.line = line
        super().__init__(message, self.path, line)

    def __str__(self) -> str:
        """Return "path:line: message", leaving out what is not known."""
        place = "" if self.path is None else self.path
        if self.line is not None:
            place = f"{place}:{self.line}" if place else f"line {self.line}"
        return f"{place}: {self.message}" if place else self.message


class CheckpointError(InstructGPTError):
    """A checkpoint is damaged, incomplete, of another model, or cannot be written."""


class BackendError(InstructGPTError):
    """A native library is missing, or the device or dtype asked for is not served by it."""


class TrainingError(InstructGPTError):
    """A run cannot go on: a loss or a gradient is not finite, or an invariant of the method does not hold."""
