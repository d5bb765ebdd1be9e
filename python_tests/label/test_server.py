"""The labelling server as the page uses it: who gets which task, what is kept, what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from .labelled import Running, filled, ranking, running, signed_in


@pytest.fixture
def server(tmp_path: Path) -> Running:
    with running(filled(tmp_path / "labels.sqlite")) as started:
        yield started


def test_a_task_is_told_without_its_checkpoints_in_an_order_of_ones_own(server: Running) -> None:
    ann = signed_in(server.http, "Ann")
    text = server.http.get("/api/task", params={"labeler": ann.labeler, "kind": "ranking"}).text
    assert "runs/model" not in text and "seed" not in text
    orders = {
        tuple(answer["id"] for answer in signed_in(server.http, f"labeler {number}").again(1)["answers"])
        for number in range(8)
    }
    assert len(orders) > 1 and {frozenset(order) for order in orders} == {frozenset("1234")}


def test_a_label_is_saved_once_corrected_and_listed(server: Running) -> None:
    ann = signed_in(server.http, "Ann")
    task = ann.task()
    assert (task["status"], task["revision"], task["payload"]) == ("new", 0, None)
    assert ann.put(task["id"], 0, ranking(task), "draft").json() == {"revision": 1, "status": "draft"}
    assert ann.task()["status"] == "draft"
    assert ann.put(task["id"], 1, ranking(task)).json() == {"revision": 2, "status": "done"}
    # The answer was lost and the page sends it again.
    assert ann.put(task["id"], 1, ranking(task)).json() == {"revision": 2, "status": "done"}
    assert ann.put(task["id"], 2, ranking(task, "1=3 0 2")).json() == {"revision": 3, "status": "done"}
    assert ann.again(task["id"])["payload"]["ranking"] == [["2", "4"], ["1"], ["3"]]
    listed = server.http.get("/api/tasks", params={"labeler": ann.labeler}).json()
    assert [(item["id"], item["status"]) for item in listed] == [(task["id"], "done")]
    assert ann.task()["id"] != task["id"]
