"""Atomic writing: content, permissions, and what is left behind when a write fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

import pytest

from instructgpt_fast import files
from instructgpt_fast.errors import CheckpointError, InstructGPTError


def test_writes_bytes_text_and_by_function(tmp_path: Path) -> None:
    assert files.atomic_write(tmp_path / "a", b"\x00\xff").read_bytes() == b"\x00\xff"
    assert files.atomic_write(tmp_path / "b", "é\n").read_bytes() == "é\n".encode()

    def write(file: IO[bytes]) -> None:
        file.write(b"one")
        file.write(b"two")

    assert files.atomic_write(tmp_path / "c", write).read_bytes() == b"onetwo"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = files.atomic_write(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


def test_failure_in_the_middle_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = files.atomic_write(tmp_path / "a", b"old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half of the new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.atomic_write(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_named_with_its_remedy(tmp_path: Path) -> None:
    path = files.atomic_write(tmp_path / "a", b"old")

    def fill(file: IO[bytes]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match=r"cannot write .*/a: No space left on device: .*free some"):
        files.atomic_write(path, fill, error=CheckpointError)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_really_full_device_is_reported() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this platform has no /dev/full")
    refused = pytest.raises(InstructGPTError, match="No space left on device")
    with refused, files.reporting_write_errors(full, InstructGPTError), full.open("wb") as file:
        file.write(b"x")


def test_missing_directory_and_directory_as_target(tmp_path: Path) -> None:
    with pytest.raises(InstructGPTError, match="does not exist; create it first"):
        files.atomic_write(tmp_path / "none" / "a", b"x")
    with pytest.raises(InstructGPTError, match="the path is a directory; name a file"):
        files.atomic_write(tmp_path, b"x")
    file = files.atomic_write(tmp_path / "file", b"x")
    with pytest.raises(InstructGPTError, match="a part of the path is a file"):
        files.atomic_write(file / "a", b"x")


def test_unwritable_directory(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere, so a read-only directory refuses nothing")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InstructGPTError, match="permission is missing"):
            files.atomic_write(tmp_path / "a", b"x")
    finally:
        tmp_path.chmod(0o700)


def test_what_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("old")
    for name in ("new", "kept"):
        files.require_writable(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and (tmp_path / "kept").read_text() == "old"
    with pytest.raises(CheckpointError, match=r"cannot write .*absent/o\.json: .*create it first"):
        files.require_writable(tmp_path / "absent" / "o.json", error=CheckpointError)
    with pytest.raises(InstructGPTError, match="the path is a directory; name a file"):
        files.require_writable(tmp_path)
