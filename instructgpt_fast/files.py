"""Durable file writing: a reader sees the old content or the new content, never a part; and what a run is called.

Not covered: two processes that write the same path at once (the last rename wins, whole).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from instructgpt_fast.errors import InstructGPTError

_STEP = re.compile(r"checkpoint-\d+")
Content = bytes | str | Callable[[IO[bytes]], None]

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or write to another disk",
    errno.EDQUOT: "the disk quota is used up; free some space or write to another disk",
    errno.EACCES: "permission is missing; choose a directory that you may write to",
    errno.EPERM: "permission is missing; choose a directory that you may write to",
    errno.EROFS: "the file system is read-only; choose another directory",
    errno.ENOENT: "the directory does not exist; create it first",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.EEXIST: "a file stands where a directory is needed; choose another path",
    errno.EFBIG: "the file would be larger than the system allows; raise the limit (ulimit -f)",
    errno.EISDIR: "the path is a directory; name a file",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
}


def explain_os_error(error: OSError) -> str:
    """Say in words what an OSError of a write means and what to do about it."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the disk and the path")
    return f"{reason}: {remedy}"


def fsync_directory(directory: Path) -> None:
    """Make the names inside `directory` durable, where the platform can open a directory."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        # Windows cannot open a directory; there the rename itself is journaled.
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def reporting_write_errors(path: Path, error: type[InstructGPTError]) -> Iterator[None]:
    """Turn an OSError inside the block into `error`, naming `path`, the reason and the remedy."""
    try:
        yield
    except OSError as cause:
        raise error(f"write: cannot write {path}: {explain_os_error(cause)}") from cause


def atomic_write(
    path: str | os.PathLike[str],
    content: Content,
    *,
    error: type[InstructGPTError] = InstructGPTError,
    mode: int = 0o644,
) -> Path:
    """Write a file whole or not at all: temporary name beside it, fsync, rename, fsync of the directory.

    path: the file; its directory must exist.
    content: bytes, str (stored as UTF-8), or a function that writes to the open binary file.
    error: the class raised when the path cannot be written (unwritable, full, missing directory).
    mode: permission bits of the new file, before the umask.
    Whatever fails, an earlier file at `path` is untouched and the temporary file is removed.
    """
    target = Path(path)
    with reporting_write_errors(target, error):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:64]}.", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fchmod(file.fileno(), mode & ~_umask())
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(target.parent)
    return target


def require_writable(path: str | os.PathLike[str], *, error: type[InstructGPTError] = InstructGPTError) -> None:
    """Raise `error`, as `atomic_write` would, when `path` cannot be written: asked before hours of work."""
    target = Path(path)
    with reporting_write_errors(target, error):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        tempfile.TemporaryFile(dir=target.parent).close()


def _umask() -> int:
    # The umask can only be read by setting it; mkstemp made the file private, which a shared run is not.
    current = os.umask(0o077)
    os.umask(current)
    return current


def run_and_step(checkpoint: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The absolute folder of a checkpoint's run, and its own name there, None where a run is named."""
    path = Path(checkpoint).absolute()  # so that "." has a name
    return (path.parent, path.name) if _STEP.fullmatch(path.name) else (path, None)


def run_name(checkpoint: str | os.PathLike[str]) -> str:
    """What a checkpoint is called where several are told apart: its run's folder, runs/ppo/checkpoint-500 being ppo."""
    return run_and_step(checkpoint)[0].name
