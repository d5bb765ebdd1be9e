"""Directories that appear whole or not at all, and the search for the newest good one of a run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from instructgpt_fast.checkpoint.manifest import MANIFEST, verify, write_manifest
from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.files import fsync_directory, reporting_write_errors

_NAME = re.compile(r"checkpoint-(\d+)")


@contextlib.contextmanager
def written_whole(target: Path, *, manifest: bool = True) -> Iterator[Path]:
    """Give a temporary sibling of `target` to fill, then make it durable and rename it to `target`.

    A checkpoint that stands at `target` already is moved to ".<name>.old" for the moment of the change, where
    `resolve` still finds it. Whatever fails inside, `target` stays as it was and the temporary directory is removed;
    what a killed process left of this name is removed by the next save. manifest: list the files with checksums.
    Raises CheckpointError when the disk refuses.
    """
    temporary, old = _hidden(target, f"tmp-{os.getpid()}"), _hidden(target, "old")
    with reporting_write_errors(target, CheckpointError):
        target.parent.mkdir(parents=True, exist_ok=True)
        if old.exists() and not target.exists():
            os.rename(old, target)
        for leftover in [*target.parent.glob(f".{target.name}.tmp-*"), old]:
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            if manifest:
                write_manifest(temporary)
            _make_durable(temporary)
            if target.exists():
                os.rename(target, old)
            os.rename(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_directory(target.parent)
        shutil.rmtree(old, ignore_errors=True)


def resolve(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint that `path` means: itself, or of a run directory the newest one that is whole.

    A damaged newer checkpoint is passed over with a warning that says what is wrong with it.
    Raises CheckpointError when the checkpoint named is damaged, or the run has none that is whole.
    """
    given = Path(path)
    if not given.is_dir():
        found = "a file" if given.exists() else "nothing"
        raise CheckpointError(
            f"checkpoint: {given} must be a checkpoint or a run directory, got {found}; check the path."
        )
    found_in_run = checkpoints_of(given)
    if (given / MANIFEST).exists() or (not found_in_run and _NAME.fullmatch(given.name)):
        verify(given)
        return given
    problems = []
    for candidate in found_in_run:
        try:
            verify(candidate)
        except CheckpointError as problem:
            problems.append(str(problem))
            continue
        if problems:
            warnings.warn(
                f"checkpoint: using {candidate}, because newer ones are damaged: {' '.join(problems)}", stacklevel=2
            )
        return candidate
    told = " ".join(problems) or "it holds no checkpoint-<step> directory."
    raise CheckpointError(f"checkpoint: {given} must hold a whole checkpoint, got none: {told} Check the path.")


def checkpoints_of(run: Path) -> list[Path]:
    """Return a run's checkpoints, newest first, whole or not."""
    steps: dict[int, Path] = {}
    for child in run.iterdir():
        hidden = child.name.startswith(".") and child.name.endswith(".old")
        match = _NAME.fullmatch(child.name[1:-4] if hidden else child.name)
        if match and child.is_dir() and not (hidden and int(match[1]) in steps):
            steps[int(match[1])] = child
    return [steps[step] for step in sorted(steps, reverse=True)]


def keep_last(run: str | os.PathLike[str], count: int) -> list[Path]:
    """Delete all but the newest `count` checkpoints of a run, and return what was deleted.

    The newest one that is whole is never deleted, even when `count` damaged ones are newer.
    Raises CheckpointError when count is below 1 or a directory cannot be deleted.
    """
    if count < 1:
        raise CheckpointError(f"keep_last: at least one checkpoint must stay, got {count}; pass 1 or more.")
    _sweep(Path(run))
    found = checkpoints_of(Path(run))
    if len(found) <= count:
        return []
    kept = set(found[:count])
    newest_whole = next((path for path in found if _is_whole(path)), None)
    if newest_whole is not None:
        kept.add(newest_whole)
    deleted = [path for path in found if path not in kept]
    for path in deleted:
        # Renamed first: a process killed half-way leaves no half checkpoint under a checkpoint's name.
        doomed = _hidden(path, f"tmp-{os.getpid()}")
        with reporting_write_errors(path, CheckpointError):
            os.rename(path, doomed)
            shutil.rmtree(doomed)
    return deleted


def _sweep(run: Path) -> None:
    # What a killed process was writing or deleting under a hidden name; a living process may still be at work there.
    for left in run.glob(".checkpoint-*.tmp-*"):
        owner = left.name.rpartition("-")[2]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_whole(path: Path) -> bool:
    try:
        verify(path)
    except CheckpointError:
        return False
    return True


def _hidden(target: Path, suffix: str) -> Path:
    return target.parent / f".{target.name}.{suffix}"


def _make_durable(directory: Path) -> None:
    for path in sorted(directory.rglob("*")):
        if path.is_dir():
            fsync_directory(path)
            continue
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    fsync_directory(directory)
