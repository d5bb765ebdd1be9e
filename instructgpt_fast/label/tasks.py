"""Which task a labeler gets next, and how a task is told to the page.

The next task of a kind is, in this order: one's own draft, the newest first; the task one has opened before; the task
that the fewest labelers have finished or hold open; the first in the order of the prompts. A task is not given to
somebody who has saved a label for it, nor when as many as are wanted have finished it or hold it open. A hold is a
lease that lapses unless its labeler saves; a task that was skipped still wants its label from others. Equal states of
the database give equal choices.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from instructgpt_fast.label.checks import Kind
from instructgpt_fast.tokenizer.dialogue import as_messages

PREVIEW_CHARACTERS = 80

# Tasks that may be given to the labeler: none with a label of theirs, of whatever status.
_OPEN = """
    tasks.kind = :kind AND tasks.ready = 1
    AND NOT EXISTS (SELECT 1 FROM labels WHERE labels.task_id = tasks.id AND labels.labeler_id = :labeler)
"""
# Tasks that others hold open, with how many have finished them or hold them. There are few: no more than labelers at
# work. Every question below costs by these, by the labeler's own labels, or by one range of an index, and not by all
# labels (CROSS JOIN keeps SQLite from beginning with the tasks).
_HELD = """
    SELECT tasks.id, tasks.finished + count(*) AS claims FROM leases CROSS JOIN tasks ON tasks.id = leases.task_id
    WHERE leases.until > :now AND leases.labeler_id <> :labeler AND tasks.finished < :wanted AND {open}
    GROUP BY tasks.id
""".replace("{open}", _OPEN)
_OPENED = f"""
    SELECT tasks.id FROM leases CROSS JOIN tasks ON tasks.id = leases.task_id
    WHERE leases.labeler_id = :labeler AND tasks.finished < :wanted AND {_OPEN}
    AND tasks.id NOT IN (SELECT id FROM ({_HELD}) WHERE claims >= :wanted)
    ORDER BY leases.until DESC, tasks.id LIMIT 1
"""
_FEWEST = f"""
    SELECT id FROM (
        SELECT * FROM (
            SELECT tasks.id AS id, tasks.finished AS claims FROM tasks INDEXED BY tasks_in_turn
            WHERE tasks.finished < :wanted AND {_OPEN} AND tasks.id NOT IN (SELECT id FROM ({_HELD}))
            ORDER BY tasks.finished, tasks.id LIMIT 1
        )
        UNION ALL SELECT id, claims FROM ({_HELD}) WHERE claims < :wanted
    ) ORDER BY claims, id LIMIT 1
"""
_DRAFT = """
    SELECT tasks.id FROM labels JOIN tasks ON tasks.id = labels.task_id
    WHERE labels.labeler_id = :labeler AND labels.status = 'draft' AND tasks.kind = :kind
    ORDER BY labels.changed_at DESC, labels.id DESC LIMIT 1
"""
_OWN = """
    FROM labels JOIN tasks ON tasks.id = labels.task_id WHERE labels.labeler_id = :labeler AND tasks.kind = :kind
"""


def content_of(prompt: str | Sequence[Any]) -> str:
    """A prompt as the JSON that stands in the database: equal prompts are equal texts."""
    if not isinstance(prompt, str):
        messages = [{"role": message.role, "content": message.content} for message in as_messages(prompt)]
        return json.dumps(messages, ensure_ascii=False)
    return json.dumps(prompt, ensure_ascii=False)


def choose(connection: sqlite3.Connection, labeler: int, kind: Kind, now: float, wanted: int) -> int | None:
    """The id of the task that the labeler should work on, None when there is none. now: seconds since 1970.

    wanted: how many labelers should finish each task.
    """
    asked = {"labeler": labeler, "kind": kind, "now": now, "wanted": wanted}
    for query in (_DRAFT, _OPENED, _FEWEST):
        row = connection.execute(query, asked).fetchone()
        if row is not None:
            return int(row[0])
    return None


def progress(connection: sqlite3.Connection, labeler: int, kind: Kind, now: float, wanted: int) -> dict[str, int]:
    """Counts of tasks of a kind: done, skipped and drafted by the labeler; remaining for them, their drafts included;
    total that can be worked on; waiting for answers.
    """
    asked = {"labeler": labeler, "kind": kind, "now": now, "wanted": wanted}

    def count(query: str) -> int:
        return int(connection.execute(query, asked).fetchone()[0])

    drafts = count(f"SELECT count(*) {_OWN} AND labels.status = 'draft'")
    wanting = count("SELECT count(*) FROM tasks WHERE kind = :kind AND ready = 1 AND finished < :wanted")
    taken = count(f"SELECT count(*) FROM ({_HELD}) WHERE claims >= :wanted")
    return {
        "done": count(f"SELECT count(*) {_OWN} AND labels.status = 'done'"),
        "skipped": count(f"SELECT count(*) {_OWN} AND labels.status = 'skipped'"), "drafts": drafts,
        "remaining": drafts + wanting - count(f"SELECT count(*) {_OWN} AND tasks.finished < :wanted") - taken,
        "total": count("SELECT count(*) FROM tasks WHERE kind = :kind AND ready = 1"),
        "waiting": count("SELECT count(*) FROM tasks WHERE kind = :kind AND ready = 0"),
    }


def lease(connection: sqlite3.Connection, task: int, labeler: int, until: float) -> None:
    """Keep a task for a labeler until a time in seconds since 1970."""
    connection.execute(
        "INSERT INTO leases (task_id, labeler_id, until) VALUES (?, ?, ?) "
        "ON CONFLICT (task_id, labeler_id) DO UPDATE SET until = excluded.until", (task, labeler, until),
    )


def shorten(connection: sqlite3.Connection, until: float) -> None:
    """Let no lease last longer than `until`: after a clock was set back, or with a shorter lease, some would."""
    connection.execute("UPDATE leases SET until = :until WHERE until > :until", {"until": until})


def release(connection: sqlite3.Connection, task: int, labeler: int) -> None:
    """Let others have a task."""
    connection.execute("DELETE FROM leases WHERE task_id = ? AND labeler_id = ?", (task, labeler))


def kind_of(connection: sqlite3.Connection, task: int) -> Kind | None:
    """The kind of a task; None when there is no such task, or no answers to rank yet."""
    row = connection.execute(
        "SELECT kind FROM tasks WHERE id = ? AND ready = 1", (task,)
    ).fetchone()
    return None if row is None else cast(Kind, row[0])


def answers_of(connection: sqlite3.Connection, task: int) -> list[tuple[int, str]]:
    """(id, text) of the answers that a ranking ranks, by id; none for a demonstration."""
    return connection.execute(
        "SELECT answers.id, answers.text FROM answers JOIN tasks ON tasks.prompt_id = answers.prompt_id "
        "WHERE tasks.id = ? AND tasks.kind = 'ranking' ORDER BY answers.id", (task,),
    ).fetchall()


def described(connection: sqlite3.Connection, task: int, labeler: int) -> dict[str, Any]:
    """A task with the labeler's label as the page gets it; status "new" and revision 0 where there is none.

    The answers stand in an order of this labeler's own, so that no answer profits from its place; who gave them is not
    told.
    """
    kind, content = connection.execute(
        "SELECT tasks.kind, prompts.content FROM tasks JOIN prompts ON prompts.id = tasks.prompt_id WHERE tasks.id = ?",
        (task,),
    ).fetchone()
    answers = sorted(answers_of(connection, task), key=lambda answer: _place(labeler, answer[0]))
    row = connection.execute(
        "SELECT status, revision, payload FROM labels WHERE task_id = ? AND labeler_id = ?", (task, labeler)
    ).fetchone()
    status, revision, payload = ("new", 0, None) if row is None else (row[0], row[1], json.loads(row[2]))
    return {
        "id": task, "kind": kind, "prompt": _messages(content),
        "answers": [{"id": str(identity), "text": text} for identity, text in answers],
        "status": status, "revision": revision, "payload": payload,
    }


def labels_of(connection: sqlite3.Connection, labeler: int) -> list[dict[str, Any]]:
    """The labels of a labeler, the newest first; updated_at in UTC; preview: how the user's last message begins."""
    rows = connection.execute(
        "SELECT tasks.id, tasks.kind, labels.status, labels.changed_at, prompts.content FROM labels "
        "JOIN tasks ON tasks.id = labels.task_id JOIN prompts ON prompts.id = tasks.prompt_id "
        "WHERE labels.labeler_id = ? ORDER BY labels.changed_at DESC, labels.id DESC", (labeler,),
    ).fetchall()
    return [
        {
            "id": identity, "kind": kind, "status": status,
            "updated_at": datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds"),
            "preview": " ".join(_messages(content)[-1]["content"].split())[:PREVIEW_CHARACTERS],
        }
        for identity, kind, status, changed, content in rows
    ]


def _messages(content: str) -> list[dict[str, str]]:
    prompt = json.loads(content)
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _place(labeler: int, answer: int) -> bytes:
    return hashlib.sha256(f"{labeler}/{answer}".encode("ascii")).digest()
