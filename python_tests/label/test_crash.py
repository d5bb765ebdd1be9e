"""What was answered is on disk: a server killed in the middle of many saves, a full disk, a second server."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from instructgpt_fast.cli.command_line import main
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.label.schema import open_database
from instructgpt_fast.label.store import Store

from .labelled import Client, filled, process, ranking, running, signed_in, wait_until

Label = tuple[int, str, Any]  # revision, status, payload


@dataclass
class Worker:
    """A labeler who saves as fast as the server takes it, and notes what was answered and what was only asked."""

    client: Client
    answered: dict[int, list[Label]] = field(default_factory=dict)
    asked: dict[int, Label] = field(default_factory=dict)

    def work(self) -> None:
        """Draft, change and finish task after task until the server is gone."""
        with contextlib.suppress(httpx.TransportError):
            while (task := self.client.task()) is not None:
                self.label(task)

    def label(self, task: Any) -> None:
        whole, begun = ranking(task), task["revision"]
        for step, (payload, status) in enumerate([
            ({**whole, "ranking": []}, "draft"), ({**whole, "note": "é" * 3000}, "draft"), (whole, "done"),
            ({**whole, "ranking": whole["ranking"][::-1]}, "done"),
        ], start=begun + 1):
            # A draft that an earlier server left is gone on with: other words, so that they are a change.
            payload["note"] += f" {begun}"
            self.asked[task["id"]] = (step, status, payload)
            answer = self.client.put(task["id"], step - 1, payload, status).raise_for_status().json()
            assert answer == {"revision": step, "status": status}
            self.answered.setdefault(task["id"], []).append((step, status, payload))


def killed_while_saving(log: Path, database: Path, labelers: int, saves: int) -> list[Worker]:
    """What the labelers know of a server that was killed after so many saves, with more of them on the way."""
    with process(log, database, "--labels-per-task", str(labelers)) as server:
        url = server.url()
        with contextlib.ExitStack() as stack:
            workers = [
                Worker(signed_in(stack.enter_context(httpx.Client(base_url=url, timeout=60.0)), f"labeler {number}"))
                for number in range(labelers)
            ]
            pool = stack.enter_context(ThreadPoolExecutor(labelers))
            working = [pool.submit(worker.work) for worker in workers]
            wait_until(
                lambda: sum(len(own) for worker in workers for own in list(worker.answered.values())) >= saves,
                lambda: server.told,
            )
            server.process.send_signal(signal.SIGKILL)
            assert server.process.wait(30) == -signal.SIGKILL
            for one in working:
                one.result(60)
    return workers


def check_nothing_is_lost(database: Path, workers: list[Worker]) -> int:
    """Every answered label stands as it was answered last, or as it was asked after that; returns their number."""
    store = Store(database)
    labels = 0
    for worker in workers:
        for task, answered in worker.answered.items():
            found = store.task(worker.client.labeler, task)
            assert (found["revision"], found["status"], found["payload"]) in (answered[-1], worker.asked[task])
            labels += 1
    store.close()
    with contextlib.closing(open_database(database)) as connection:
        kept = {
            (labeler, task, revision): status for labeler, task, revision, status in connection.execute(
                "SELECT labeler_id, task_id, history.revision, history.status FROM history "
                "JOIN labels ON labels.id = label_id")
        }
    for worker in workers:
        for task, answered in worker.answered.items():
            for revision, status, _ in answered:
                assert kept[worker.client.labeler, task, revision] == status
    return labels


def test_a_server_killed_in_the_middle_of_saves_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    database = Path(filled(tmp_path / "labels.sqlite", prompts=30))
    workers = killed_while_saving(tmp_path / "log", database, labelers=8, saves=100)
    assert check_nothing_is_lost(database, workers) >= 20
    # The page comes back and sends again what was not answered: it is taken, or it was there.
    with running(database, labels_per_task=8) as server:
        for worker in workers:
            worker.client.http = server.http
            for task, (revision, status, payload) in worker.asked.items():
                if worker.answered.get(task, [()])[-1] != (revision, status, payload):
                    answer = worker.client.put(task, revision - 1, payload, status)
                    assert answer.json() == {"revision": revision, "status": status}


@pytest.mark.slow
def test_servers_killed_again_and_again_lose_nothing(tmp_path: Path) -> None:
    database = Path(filled(tmp_path / "labels.sqlite", prompts=200))
    for saves in (1, 10, 60, 300):
        check_nothing_is_lost(
            database, killed_while_saving(tmp_path / "log", database, labelers=8, saves=saves)
        )


def test_a_full_disk_is_told_and_harms_nothing_and_the_next_server_goes_on(tmp_path: Path) -> None:
    database = Path(filled(tmp_path / "labels.sqlite"))
    with process(tmp_path / "log", database) as server, httpx.Client(base_url=server.url(), timeout=60.0) as http:
        ann = signed_in(http, "Ann")
        task = ann.task()
        assert ann.put(task["id"], 0, ranking(task)).status_code == 200
        # No file may grow: to the process it is the same as a disk without space.
        log = Path(f"{database}-wal")
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1]))
        longer = {**ranking(task, "3 2 1 0"), "note": "x" * 9000}
        refused = ann.put(task["id"], 1, longer)
        assert refused.status_code == 507 and "Nothing was saved" in refused.json()["error"]
        assert ann.put(task["id"], 1, longer).status_code == 507
        assert http.get("/api/form").status_code == 200
        assert ann.again(task["id"])["payload"] == ranking(task)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        assert ann.put(task["id"], 1, longer).json() == {"revision": 2, "status": "done"}
        begun = ann.task()
        assert ann.put(begun["id"], 0, ranking(begun), "draft").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0, server.told
    # The next server goes on where this one ended.
    with running(database) as again:
        ann = signed_in(again.http, "  ANN ")
        assert ann.again(task["id"])["payload"] == longer
        assert ann.task() == {**begun, "status": "draft", "revision": 1, "payload": ranking(begun)}


def test_an_empty_page_of_the_disk_is_a_full_disk_too(tmp_path: Path) -> None:
    with running(filled(tmp_path / "labels.sqlite")) as server:
        ann = signed_in(server.http, "Ann")
        task = ann.task()
        pages = server.store._connection.execute("PRAGMA page_count").fetchone()[0]
        server.store._connection.execute(f"PRAGMA max_page_count={pages}")
        answer = ann.put(task["id"], 0, {**ranking(task), "note": "x" * 10_000})
        assert (answer.status_code, answer.headers["retry-after"]) == (507, "5")
        assert "disk is full" in answer.json()["error"]
        server.store._connection.execute("PRAGMA max_page_count=100000")
        assert ann.put(task["id"], 0, ranking(task)).status_code == 200


def test_two_servers_never_write_one_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = filled(tmp_path / "labels.sqlite")
    with running(database) as server:
        with pytest.raises(ConfigError, match=rf"one server at a time .* \(process {os.getpid()}\)"):
            Store(database)
        (tmp_path / "alias.sqlite").symlink_to(database)
        assert main(["label", "--database", str(tmp_path / "alias.sqlite"), "--port", "0"]) == 2
        assert "one server at a time may write" in capsys.readouterr().err
        ann = signed_in(server.http, "Ann")
        task = ann.task()
        assert ann.put(task["id"], 0, ranking(task)).status_code == 200
    Store(database).close()


def test_history_keeps_every_change_and_nothing_is_deleted(tmp_path: Path) -> None:
    store = Store(filled(tmp_path / "labels.sqlite"))
    ann = store.sign_in("Ann").id
    task, _ = store.next_task(ann, "demonstration")
    assert task is not None
    for revision, (text, status) in enumerate([("a", "draft"), ("ab", "draft"), ("abc", "done"), ("abd", "done")]):
        store.save(ann, task["id"], revision, {"response": text}, status)  # type: ignore[arg-type]
    rows = store._connection.execute("SELECT revision, status, payload FROM history ORDER BY id").fetchall()
    assert rows == [
        (1, "draft", '{"response":"a"}'), (2, "draft", '{"response":"ab"}'), (3, "done", '{"response":"abc"}'),
        (4, "done", '{"response":"abd"}'),
    ]
    for statement in ("DELETE FROM labels", "DELETE FROM history", "UPDATE history SET status = 'done'"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            store._connection.execute(statement)
    store.close()
