"""Which files are opened: whole databases of labels of this version and no others; refusing one does not change it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.label import agreement, export
from instructgpt_fast.label.schema import open_database
from instructgpt_fast.label.store import Store

from .labelled import filled


def other_program(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.commit()


def later_version(path: Path) -> None:
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")


def text(path: Path) -> None:
    path.write_text("these are no labels\n" * 100)


def overwritten(path: Path) -> None:
    filled(path, prompts=60)
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 6 * 4096] = b"\x5a" * (3 * 4096)
    path.write_bytes(content)


def cut(path: Path) -> None:
    filled(path, prompts=60)
    path.write_bytes(path.read_bytes()[: 4096 * 5])


def stray(path: Path) -> None:
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO leases VALUES (99, 99, 0.0)")
        connection.commit()


@pytest.mark.parametrize(("make", "told"), [
    (other_program, "must be a database of labels (application id 0x49474c42), got 0x0 with 1 tables"),
    (later_version, "must have version 1, got 2; open it with the version of"),
    (text, "must be an SQLite database, got another kind"), (overwritten, "the database is damaged"),
    (cut, "the database is damaged"), (stray, "is damaged (2 rows refer to what is not there, the first in 'leases')"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_that_cannot_be_used_is_told_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], told: str
) -> None:
    path = tmp_path / "labels.sqlite"
    make(path)
    content = path.read_bytes()
    for use in (lambda: Store(path), lambda: export(path, tmp_path / "out"), lambda: agreement(path)):
        with pytest.raises(DataError) as raised:
            use()
        assert str(raised.value).startswith(f"{path}: label") and told in str(raised.value)
    assert path.read_bytes() == content
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_missing_is_made_by_a_server_alone(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    with pytest.raises(DataError, match="there is no database"):
        export(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    path.touch()  # what a server leaves that is killed before its first table
    Store(path).close()
    with pytest.raises(DataError, match="there must be a finished label, got none"):
        export(path, tmp_path / "out")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the directory does not exist"):
        Store(tmp_path / "no" / "labels.sqlite")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="must be a file, got a directory"):
        Store(tmp_path / "folder")


def test_every_commit_waits_for_the_disk_and_readers_cannot_write(tmp_path: Path) -> None:
    path = Path(filled(tmp_path / "labels?mode=memory#%41.sqlite"))
    store = Store(path)
    pragmas = [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in
               ("journal_mode", "synchronous", "foreign_keys")]
    assert pragmas == ["wal", 2, 1]  # 2 is FULL
    with contextlib.closing(open_database(path)) as reader:
        assert reader.execute("SELECT count(*) FROM prompts").fetchone()[0] == 3
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM prompts")
    store.close()
    assert path.exists()


def test_a_server_that_cannot_open_its_file_lets_go_of_it(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    text(path)
    with pytest.raises(DataError):
        Store(path)
    path.unlink()
    Store(path).close()
