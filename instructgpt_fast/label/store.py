"""What the labelling server keeps: prompts, answers, labelers and labels, in SQLite, through one writer.

Every method takes one lock and one transaction: what it returned is on disk, whatever happens to the process next.
Not covered: who a labeler is; a name is taken as it is given.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.files import explain_os_error
from instructgpt_fast.label import tasks
from instructgpt_fast.label.checks import KINDS, Kind, Status, checked_payload
from instructgpt_fast.label.errors import StaleError, displaced, malformed, refused, unknown
from instructgpt_fast.label.form import Ratings
from instructgpt_fast.label.schema import open_database, transaction

NAME_CHARACTERS = 80


@dataclass(frozen=True)
class Labeler:
    """Somebody who labels."""

    id: int
    name: str


@dataclass(frozen=True)
class Answer:
    """An answer to a prompt, and who gave it: a checkpoint with a seed."""

    text: str
    checkpoint: str
    seed: int


@dataclass(frozen=True)
class Saved:
    """What became of a label: its revision counts its changes from 1."""

    revision: int
    status: Status


class Store:
    """The one writer of a database of labels; may be called from any thread."""

    def __init__(
        self, path: str | os.PathLike[str], *, kinds: Sequence[Kind] = KINDS, labels_per_task: int = 1,
        lease_seconds: float = 1800.0, ratings: Ratings = "all", clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the database, or make it, and hold it against other servers.

        kinds: what is to be labelled. labels_per_task: how many labelers should finish each task. lease_seconds: how
        long a task that somebody has opened or saved is kept from others who are not needed for it. ratings: what a
        finished ranking must rate. clock: seconds since 1970.
        Raises ConfigError while another server holds the database, DataError for a file that cannot be used.
        """
        self.path = Path(path)
        self.kinds, self.ratings = tuple(kinds), ratings
        self._labels_per_task, self._lease_seconds, self._clock = labels_per_task, lease_seconds, clock
        self._lock = threading.Lock()
        self._held = _hold(self.path)
        try:
            self._connection = open_database(path, create=True, writing=True)
            # Absolute: a server whose working directory changes still looks at the same file.
            self._files = files_of(self.path.absolute())
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        """Close the database and let others have it; later calls fail."""
        with self._lock:
            self._connection.close()
            self._held.close()

    # Prompts and answers.

    def add_prompts(self, prompts: Iterable[str | Sequence[Any]]) -> int:
        """Add prompts that are not there yet, with a task of each kind; the number added.

        prompts: text, or messages with role and content that end with the user's.
        """
        added = 0
        with self._changing() as connection:
            for prompt in prompts:
                content = tasks.content_of(prompt)
                found = connection.execute("INSERT OR IGNORE INTO prompts (content) VALUES (?)", (content,))
                if found.rowcount:
                    added += 1
                    connection.executemany(
                        "INSERT INTO tasks (prompt_id, kind, ready) VALUES (?, ?, ?)",
                        [(found.lastrowid, kind, int(kind == "demonstration")) for kind in KINDS],
                    )
        return added

    def any_prompts(self) -> bool:
        """Whether there is anything to label."""
        with self._reading() as connection:
            return connection.execute("SELECT 1 FROM prompts LIMIT 1").fetchone() is not None

    def unanswered(self) -> list[tuple[int, str | list[dict[str, str]]]]:
        """Prompts without answers to rank, as (id, prompt), in the order in which they were added."""
        with self._reading() as connection:
            rows = connection.execute("SELECT id, content FROM prompts WHERE answered = 0 ORDER BY id").fetchall()
        return [(row[0], json.loads(row[1])) for row in rows]

    def add_answers(self, prompt: int, answers: Sequence[Answer]) -> None:
        """Give a prompt the answers that are to be ranked, in the order of their ids; at least 2, all different."""
        if len(answers) < 2 or len({answer.text for answer in answers}) < len(answers):
            raise ValueError(f"a prompt needs at least 2 answers, all different, got {len(answers)}")
        with self._changing() as connection:
            found = connection.execute(
                "UPDATE prompts SET answered = 1, problem = NULL WHERE id = ? AND answered = 0", (prompt,)
            )
            if not found.rowcount:
                raise ValueError(f"prompt {prompt} has answers already, or does not exist")
            connection.execute("UPDATE tasks SET ready = 1 WHERE prompt_id = ? AND kind = 'ranking'", (prompt,))
            connection.executemany(
                "INSERT INTO answers (prompt_id, text, checkpoint, seed) VALUES (?, ?, ?, ?)",
                [(prompt, answer.text, answer.checkpoint, answer.seed) for answer in answers],
            )

    def set_problem(self, prompt: int, problem: str) -> None:
        """Keep why a prompt has no answers to rank."""
        with self._changing() as connection:
            connection.execute("UPDATE prompts SET problem = ? WHERE id = ? AND answered = 0", (problem, prompt))

    # People and their labels.

    def sign_in(self, name: str) -> Labeler:
        """The labeler of that name, new or not; case and spaces around make no difference. Raises ApiError 422."""
        name = _checked_name(name)
        folded = unicodedata.normalize("NFKC", name.casefold())
        with self._changing() as connection:
            connection.execute("INSERT OR IGNORE INTO labelers (name, folded) VALUES (?, ?)", (name, folded))
            row = connection.execute("SELECT id, name FROM labelers WHERE folded = ?", (folded,)).fetchone()
        return Labeler(*row)

    def next_task(self, labeler: int, kind: Kind) -> tuple[dict[str, Any] | None, dict[str, int]]:
        """The task that the labeler should work on now, leased to them, and how far they are; None when none is left.

        Which one: label/tasks.py. Raises ApiError 404 for an unknown labeler, 422 for a kind that is not labelled here.
        """
        if kind not in self.kinds:
            raise refused(f"kind must be one of those labelled here, {', '.join(self.kinds)}, got {kind!r}.")
        with self._changing() as connection:
            _require_labeler(connection, labeler)
            now = self._clock()
            tasks.shorten(connection, now + self._lease_seconds)
            found = tasks.choose(connection, labeler, kind, now, self._labels_per_task)
            if found is not None:
                tasks.lease(connection, found, labeler, now + self._lease_seconds)
            task = None if found is None else tasks.described(connection, found, labeler)
            return task, tasks.progress(connection, labeler, kind, now, self._labels_per_task)

    def task(self, labeler: int, identity: int) -> dict[str, Any]:
        """A task with this labeler's label, as the page gets it. Raises ApiError 404."""
        with self._reading() as connection:
            _require_labeler(connection, labeler)
            self._kind_of(connection, identity)
            return tasks.described(connection, identity, labeler)

    def labels_of(self, labeler: int) -> list[dict[str, Any]]:
        """What the labeler has done, the newest first. Raises ApiError 404."""
        with self._reading() as connection:
            _require_labeler(connection, labeler)
            return tasks.labels_of(connection, labeler)

    def save(self, labeler: int, identity: int, revision: int, payload: Any, status: Status) -> Saved:
        """Save a label; on return it is on disk.

        revision: the one that the change was made to, 0 for none. A change that is already there is not made again.
        Raises StaleError when another change came first, ApiError 404 for an unknown labeler or task, 422 for a payload
        that breaks a rule, and for a draft over a finished label.
        """
        with self._changing() as connection:
            _require_labeler(connection, labeler)
            kind = self._kind_of(connection, identity)
            answers = [str(answer[0]) for answer in tasks.answers_of(connection, identity)]
            checked = checked_payload(kind, status, payload, answers, self.ratings)
            text = json.dumps(checked, ensure_ascii=False, separators=(",", ":"))
            row = connection.execute(
                "SELECT id, revision, status, payload FROM labels WHERE task_id = ? AND labeler_id = ?",
                (identity, labeler),
            ).fetchone()
            if row is not None and (row[2], row[3]) == (status, text):
                return Saved(row[1], status)
            if revision != (0 if row is None else row[1]):
                raise StaleError(tasks.described(connection, identity, labeler))
            if row is not None and row[2] == "done" and status == "draft":
                raise refused("a finished label stays finished: send the correction as done, or as skipped.")
            now = self._clock()
            if row is None:
                connection.execute(
                    "INSERT INTO labels (task_id, labeler_id, status, payload, revision, changed_at) "
                    "VALUES (?, ?, ?, ?, 1, ?)", (identity, labeler, status, text, now),
                )
            else:
                connection.execute(
                    "UPDATE labels SET status = ?, payload = ?, revision = revision + 1, changed_at = ? WHERE id = ?",
                    (status, text, now, row[0]),
                )
            if status == "draft":
                tasks.lease(connection, identity, labeler, now + self._lease_seconds)
            else:
                tasks.release(connection, identity, labeler)
            return Saved(revision + 1, status)

    def _kind_of(self, connection: sqlite3.Connection, identity: int) -> Kind:
        kind = tasks.kind_of(connection, identity)
        if kind is None or kind not in self.kinds:
            raise unknown(f"There is no task {identity} to label here.")
        return kind

    def _changing(self) -> AbstractContextManager[sqlite3.Connection]:
        if files_of(self.path.absolute()) != self._files:
            # SQLite would go on in files that nobody finds, and that nobody would say "saved" about.
            raise displaced(self.path.name)
        return _Locked(self._lock, transaction(self._connection))

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return _Locked(self._lock, transaction(self._connection, writing=False))


def files_of(path: Path) -> list[tuple[int, int] | None]:
    """Which files the database and its log are: device and number of each, None for one that is not there."""
    found: list[tuple[int, int] | None] = []
    for place in (path, path.with_name(f"{path.name}-wal")):
        try:
            status = place.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return found


class _Locked(AbstractContextManager[sqlite3.Connection]):
    """A transaction under a lock: the lock is taken first and left last."""

    def __init__(self, lock: threading.Lock, inner: AbstractContextManager[sqlite3.Connection]) -> None:
        self._lock, self._inner = lock, inner

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        try:
            return self._inner.__enter__()
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *error: Any) -> bool | None:
        try:
            return self._inner.__exit__(*error)
        finally:
            self._lock.release()


def _require_labeler(connection: sqlite3.Connection, labeler: int) -> None:
    if connection.execute("SELECT 1 FROM labelers WHERE id = ?", (labeler,)).fetchone() is None:
        raise unknown(f"There is no labeler {labeler}; sign in with POST /api/labelers.")


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise malformed(f"name must be text, got {type(name).__name__}.")
    clean = " ".join(unicodedata.normalize("NFC", name).split())
    # The joiners of emoji and of Persian and Indic scripts are not "printable", and belong to names all the same.
    seen = clean.replace("\u200c", "").replace("\u200d", "").strip()
    if not (seen and seen.isprintable() and len(clean) <= NAME_CHARACTERS):
        raise refused(f"name must be 1 to {NAME_CHARACTERS} printable characters, got {len(clean)}; write another.")
    return clean


def _hold(path: Path) -> IO[bytes]:
    """A lock on a file beside the database, kept as long as the file is open; the system lets go when we die."""
    real = path.resolve()  # two names of one file are one database
    place = real.with_name(f"{real.name}.lock")
    try:
        # Appending: whoever is refused must not empty what the holder wrote.
        file = open(place, "ab+")  # noqa: SIM115  (kept open: closing it lets go)
    except OSError as cause:
        raise ConfigError(f"label: cannot open {place}: {explain_os_error(cause)}") from cause
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read(32).decode("ascii", "replace").strip()
        file.close()
        raise ConfigError(
            f"label: one server at a time may write {path}, got one already running (process {holder or 'unknown'}); "
            "stop it or name another database."
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n".encode("ascii"))
    file.flush()
    return file
