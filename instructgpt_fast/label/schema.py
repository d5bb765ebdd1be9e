"""The database of labels: its tables, and how a file is opened, recognised and checked.

SQLite in WAL mode with synchronous=FULL: a transaction that was answered has been given to the disk
(sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous).
Not covered: a disk that says "written" before it has; network file systems, whose locks cannot be relied on.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from instructgpt_fast.errors import DataError
from instructgpt_fast.files import explain_os_error, fsync_directory

# Told apart by these two numbers in a file's header (sqlite.org/fileformat.html, offsets 68 and 60).
APPLICATION_ID = 0x49474C42  # "IGLB"
VERSION = 1

_TABLES = """
CREATE TABLE prompts (
    id INTEGER PRIMARY KEY,
    content TEXT NOT NULL UNIQUE,               -- JSON: text, or a list of {"role", "content"}
    answered INTEGER NOT NULL DEFAULT 0 CHECK (answered IN (0, 1)),
    problem TEXT                                -- why it has no answers to rank
) STRICT;
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    prompt_id INTEGER NOT NULL REFERENCES prompts (id),
    text TEXT NOT NULL CHECK (text <> ''),
    checkpoint TEXT NOT NULL,
    seed INTEGER NOT NULL,
    UNIQUE (prompt_id, text)                    -- two equal answers cannot be ranked
) STRICT;
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    prompt_id INTEGER NOT NULL REFERENCES prompts (id),
    kind TEXT NOT NULL CHECK (kind IN ('ranking', 'demonstration')),
    ready INTEGER NOT NULL CHECK (ready IN (0, 1)),     -- a ranking is, once it has answers
    finished INTEGER NOT NULL DEFAULT 0,                -- labels whose status is done; the triggers below count them
    UNIQUE (prompt_id, kind)
) STRICT;
CREATE INDEX tasks_in_turn ON tasks (kind, ready, finished, id);
CREATE TABLE labelers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    folded TEXT NOT NULL UNIQUE                 -- the name without differences of case
) STRICT;
CREATE TABLE labels (
    id INTEGER PRIMARY KEY,
    task_id INTEGER NOT NULL REFERENCES tasks (id),
    labeler_id INTEGER NOT NULL REFERENCES labelers (id),
    status TEXT NOT NULL CHECK (status IN ('draft', 'done', 'skipped')),
    payload TEXT NOT NULL,                      -- JSON as label/checks.py writes it
    revision INTEGER NOT NULL CHECK (revision >= 1),
    changed_at REAL NOT NULL,                   -- seconds since 1970
    UNIQUE (task_id, labeler_id)
) STRICT;
CREATE INDEX labels_of_labeler ON labels (labeler_id, changed_at);
CREATE TABLE leases (
    task_id INTEGER NOT NULL REFERENCES tasks (id),
    labeler_id INTEGER NOT NULL REFERENCES labelers (id),
    until REAL NOT NULL,                        -- seconds since 1970
    PRIMARY KEY (task_id, labeler_id)
) STRICT;
CREATE INDEX leases_in_time ON leases (until);
CREATE INDEX leases_of_labeler ON leases (labeler_id);
CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    label_id INTEGER NOT NULL REFERENCES labels (id),
    revision INTEGER NOT NULL,
    status TEXT NOT NULL,
    payload TEXT NOT NULL,
    changed_at REAL NOT NULL,
    UNIQUE (label_id, revision)
) STRICT;
-- Whoever changes a label, in this program or by hand, leaves what it was; and nothing said is unsaid.
CREATE TRIGGER label_added AFTER INSERT ON labels BEGIN
    INSERT INTO history (label_id, revision, status, payload, changed_at)
    VALUES (new.id, new.revision, new.status, new.payload, new.changed_at);
    UPDATE tasks SET finished = finished + (new.status = 'done') WHERE id = new.task_id;
END;
CREATE TRIGGER label_changed AFTER UPDATE ON labels BEGIN
    INSERT INTO history (label_id, revision, status, payload, changed_at)
    VALUES (new.id, new.revision, new.status, new.payload, new.changed_at);
    UPDATE tasks SET finished = finished + (new.status = 'done') - (old.status = 'done') WHERE id = new.task_id;
END;
CREATE TRIGGER label_stays BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'labels are never deleted'); END;
CREATE TRIGGER history_stays BEFORE DELETE ON history BEGIN SELECT RAISE(ABORT, 'history is never deleted'); END;
CREATE TRIGGER history_is_past BEFORE UPDATE ON history BEGIN SELECT RAISE(ABORT, 'history never changes'); END;
"""


def open_database(
    path: str | os.PathLike[str], *, create: bool = False, writing: bool = False, check: bool = True
) -> sqlite3.Connection:
    """Open a database of labels, whole and of this version; its connection may be used by one thread at a time.

    create: make it where there is no file. writing: False refuses every change. check: read all of it for damage.
    Raises DataError for a file that is missing, damaged, of another program or of another version.
    """
    place = Path(path)
    new = not place.exists()
    if place.is_dir():
        raise DataError("label: the database must be a file, got a directory; name the file in it", path)
    if new and not create:
        raise DataError("label: there is no database; check the path, or start one with instructgpt-fast label", path)
    with _explained(place):
        # A relative path may begin with anything, "file:" among it; and only existing files are opened, so that a
        # path which is mistaken leaves nothing behind.
        uri = f"{place.absolute().as_uri()}?{_mode(place, new, create or writing)}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            empty = _recognise(connection, place, create)
            for line in ("foreign_keys=ON", "synchronous=FULL", "trusted_schema=OFF", "cell_size_check=ON"):
                connection.execute(f"PRAGMA {line}")
            if empty:
                _make(connection)
                fsync_directory(place.absolute().parent)
            if check:
                _check(connection, place)
            if not writing:
                connection.execute("PRAGMA query_only=ON")
        except BaseException:
            connection.close()
            raise
    return connection


def _mode(place: Path, new: bool, changing: bool) -> str:
    """How SQLite opens a file: a reader needs to write beside it too, and cannot on an archive's disk.

    There, a database without a log is whole and stays as it is.
    """
    if new:
        return "mode=rwc"
    archived = not os.access(place.absolute().parent, os.W_OK) and not place.with_name(f"{place.name}-wal").exists()
    return "mode=ro&immutable=1" if archived and not changing else "mode=rw"


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, *, writing: bool = True) -> Iterator[sqlite3.Connection]:
    """All or nothing; on return it is on disk. Reading sees one state of the database from beginning to end."""
    connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # After some errors, a full disk among them, SQLite has rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    # Text, indices and numbers in one transaction: a process that is killed here leaves an empty file.
    connection.executescript(
        f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}; COMMIT;"
    )


def _recognise(connection: sqlite3.Connection, place: Path, create: bool) -> bool:
    """Whether the file is empty, and to be filled. Raises DataError for one of another program or version."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if create and application == version == tables == 0:
        return True
    if application == version == tables == 0:
        raise DataError(
            "label: the database is empty; where it was copied or moved while its server ran, its labels are in the "
            "-wal file beside the original: put that beside it under this name", place,
        )
    if application != APPLICATION_ID:
        raise DataError(
            f"label: the file must be a database of labels (application id {APPLICATION_ID:#x}), got "
            f"{application:#x} with {tables} tables and indices; name another file", place,
        )
    if version != VERSION:
        raise DataError(
            f"label: the database must have version {VERSION}, got {version}; open it with the version of "
            "instructgpt_fast that wrote it, and export from there", place,
        )
    return False


def _check(connection: sqlite3.Connection, place: Path) -> None:
    found = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
    if found != ["ok"]:
        raise _damaged(place, "; ".join(map(str, found)))
    strays = connection.execute("PRAGMA foreign_key_check").fetchall()
    if strays:
        raise _damaged(place, f"{len(strays)} rows refer to what is not there, the first in {strays[0][0]!r}")


def _damaged(place: Path, what: str) -> DataError:
    return DataError(
        f"label: the database is damaged ({what[:300]}); keep this file, restore a copy of it, or recover what can be "
        "read with the sqlite3 shell (.recover)", place,
    )


@contextlib.contextmanager
def _explained(place: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as cause:
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            raise DataError("label: the file must be an SQLite database, got another kind; name another file",
                            place) from cause
        if code == sqlite3.SQLITE_CORRUPT:
            raise _damaged(place, str(cause)) from cause
        raise DataError(f"label: the database cannot be opened ({cause}); check the path, its permissions and the disk",
                        place) from cause
    except OSError as cause:
        raise DataError(f"label: the database cannot be opened: {explain_os_error(cause)}", place) from cause
