"""Finished labels as the jsonl that training reads: demonstrations.jsonl and comparisons.jsonl.

Only labels whose state is done; lines by prompt, then by labeler, in the order of their ids, so that equal databases
give equal bytes. Answers of a prompt are never equal in text: sampling draws an equal one again, and the database takes
none.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from instructgpt_fast.errors import DataError
from instructgpt_fast.files import atomic_write, reporting_write_errors
from instructgpt_fast.label.checks import ranks_of
from instructgpt_fast.label.schema import open_database, transaction

_DONE = """
    SELECT prompts.id, prompts.content, labelers.name, labels.payload FROM labels
    JOIN tasks ON tasks.id = labels.task_id JOIN prompts ON prompts.id = tasks.prompt_id
    JOIN labelers ON labelers.id = labels.labeler_id
    WHERE labels.status = 'done' AND tasks.kind = ? ORDER BY prompts.id, labelers.id
"""


@dataclass(frozen=True)
class Exported:
    """The folder written to, and how many lines each file has."""

    output_dir: Path
    demonstrations: int
    comparisons: int

    def __str__(self) -> str:
        """The counts in words."""
        return f"{self.demonstrations:,} demonstrations, {self.comparisons:,} comparisons: {self.output_dir}"


def export(database: str | os.PathLike[str], output_dir: str | os.PathLike[str]) -> Exported:
    """Write the finished labels of a database to demonstrations.jsonl and comparisons.jsonl; a server may be running.

    A demonstration is {"prompt", "response", "labeler"}; a comparison {"prompt", "completions", "ranks", "labeler",
    "checkpoints", "ratings", "note"}, with ranks from 1 = best, equal ranks for a tie, and checkpoints and ratings in
    the order of the completions. Both files are from one state of the database; each is written whole or not at all.
    Raises DataError for a database that cannot be read or holds no finished label, and for a folder that cannot be
    written.
    """
    folder = Path(output_dir)
    connection = open_database(database)
    try:
        with transaction(connection, writing=False):
            counts = {kind: connection.execute(f"SELECT count(*) FROM ({_DONE})", (kind,)).fetchone()[0]
                      for kind in ("demonstration", "ranking")}
            if not any(counts.values()):
                raise DataError("label export: there must be a finished label, got none; label first", database)
            with reporting_write_errors(folder, DataError):
                folder.mkdir(parents=True, exist_ok=True)
            for name, records in (("demonstrations", demonstrations), ("comparisons", comparisons)):
                atomic_write(folder / f"{name}.jsonl", _lines(records(connection)), error=DataError)
    finally:
        connection.close()
    return Exported(folder, counts["demonstration"], counts["ranking"])


def demonstrations(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """The finished demonstrations, one object each, as `export` writes them."""
    for _, content, labeler, payload in connection.execute(_DONE, ("demonstration",)):
        yield {"prompt": json.loads(content), "response": json.loads(payload)["response"], "labeler": labeler}


def comparisons(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """The finished rankings, one object each, as `export` writes them."""
    for prompt, content, labeler, text in connection.execute(_DONE, ("ranking",)):
        payload = json.loads(text)
        answers = connection.execute(
            "SELECT id, text, checkpoint FROM answers WHERE prompt_id = ? ORDER BY id", (prompt,)
        ).fetchall()
        ranks = ranks_of(payload["ranking"])
        yield {
            "prompt": json.loads(content),
            "completions": [answer for _, answer, _ in answers],
            "ranks": [ranks[str(identity)] for identity, _, _ in answers],
            "labeler": labeler,
            "checkpoints": [checkpoint for _, _, checkpoint in answers],
            "ratings": [payload["ratings"][str(identity)] for identity, _, _ in answers],
            "note": payload["note"],
        }


def jsonl(records: Iterable[dict[str, Any]]) -> bytes:
    """Records as the content of a file."""
    return b"".join(map(line, records))


def line(record: dict[str, Any]) -> bytes:
    """One record as a line of jsonl."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")


def _lines(records: Iterable[dict[str, Any]]) -> Callable[[IO[bytes]], None]:
    def write(file: IO[bytes]) -> None:
        file.writelines(map(line, records))

    return write
