"""The output folder: one run's, whose unfinished work stands in a hidden folder inside until it is done."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.files import atomic_write, reporting_write_errors

REPORT = "report.json"
WORK = ".prepare"
_STATE = "run.json"
_LOCK = "lock"


class RunFolder:
    """An output folder that this process alone works in.

    identity: a name for options and input; a folder of another identity is never touched.
    """

    def __init__(self, output_dir: str, identity: str, *, resume: bool) -> None:
        """Open the folder, make it if need be. Raises ConfigError for one that holds anything but this run."""
        self.root = Path(output_dir)
        self.identity = identity
        self.work = self.root / WORK / identity[:16]
        self._lock: int | None = None
        with reporting_write_errors(self.root, ConfigError):
            self.root.mkdir(parents=True, exist_ok=True)
        self._refuse_others()
        with reporting_write_errors(self.root, ConfigError):
            (self.root / WORK).mkdir(exist_ok=True)
            self._lock = os.open(self.root / WORK / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take_lock()
            if self.report() is None:
                self._begin(resume=resume)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def report(self) -> dict[str, Any] | None:
        """The report of the finished run; None while it is not."""
        path = self.root / REPORT
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            identity = found["identity"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"prepare: {path} must be a report of this command, got another file; "
                              "name another output_dir") from error
        if identity != self.identity:
            raise ConfigError(
                f"prepare: {self.root} holds a finished run with other options or other input; name another output_dir"
            )
        for name, about in found["files"].items():
            size = (self.root / name).stat().st_size if (self.root / name).exists() else None
            if size != about["bytes"]:
                raise DataError(
                    f"prepare: the file must have {about['bytes']:,} bytes as {path} says, got "
                    f"{'none' if size is None else f'{size:,}'}; delete the folder and run again", self.root / name
                )
        return dict(found)

    def finish(self) -> None:
        """Delete the work of a finished run."""
        shutil.rmtree(self.root / WORK, ignore_errors=True)

    def _refuse_others(self) -> None:
        own = {WORK, REPORT}
        if (self.root / REPORT).exists() or (self.root / WORK / _STATE).exists():
            own |= {"train.jsonl", "valid.jsonl", "test.jsonl", "removed.jsonl"}
        others = sorted(
            path.name for path in self.root.iterdir() if path.name not in own and not path.name.endswith(".tmp")
        )
        if others:
            raise ConfigError(
                f"prepare: output_dir must be empty or hold this run, got {', '.join(others[:4])} in {self.root}; "
                "name another folder"
            )

    def _take_lock(self) -> None:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"prepare: another process is at work in {self.root}; wait for it, or name another output_dir"
            ) from error

    def _begin(self, *, resume: bool) -> None:
        state = self.root / WORK / _STATE
        if state.exists() and resume:
            identity = json.loads(state.read_text(encoding="utf-8"))["identity"]
            if identity != self.identity:
                raise ConfigError(
                    f"prepare: {self.root} holds an unfinished run with other options or other input; name another "
                    "output_dir, or pass resume=False to give that run up"
                )
        else:
            for path in (self.root / WORK).iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
            atomic_write(state, json.dumps({"identity": self.identity}), error=ConfigError)
        self.work.mkdir(exist_ok=True)
        for folder in (self.root, self.root / WORK, self.work):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)


def check_apart(output_dir: str, data: Sequence[str]) -> None:
    """Raise ConfigError when the output would be among the input, or the input in the output folder."""
    out = Path(output_dir).resolve()
    for path in map(Path, data):
        inside = path.resolve()
        if out == inside or inside in out.parents or out in inside.parents:
            raise ConfigError(
                f"prepare: output_dir must not hold the data nor lie in it, got {output_dir} and {path}; "
                "name another folder"
            )
