"""What the labelling server refuses: status and reason of every kind of wrong request, and nothing saved by any."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import instructgpt_fast as igf
from instructgpt_fast.cli.command_line import main
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.label import LabelConfig, label

from .labelled import Running, filled, ranking, running, signed_in

RANKING, WRITING = 1, 2  # tasks of the first prompt
FIELD = "hallucination"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    database = filled(tmp_path_factory.mktemp("labels") / "labels.sqlite")
    with running(database, max_request_bytes=400_000, body_seconds=0.5) as started:
        signed_in(started.http, "Ann")
        yield started
        assert started.store.labels_of(1) == []  # nothing of all this was saved


def whole(**changes: Any) -> dict[str, Any]:
    return {**ranking({"answers": [{"id": str(number)} for number in (1, 2, 3, 4)]}), **changes}


def rated(**changes: Any) -> dict[str, Any]:
    """A finished ranking with one answer's rating changed."""
    payload = whole()
    return {**payload, "ratings": {**payload["ratings"], "1": {**payload["ratings"]["1"], **changes}}}


def put(payload: Any, *, task: Any = RANKING, status: Any = "done", revision: Any = 0, labeler: Any = 1) -> Any:
    body = {"labeler": labeler, "revision": revision, "payload": payload, "status": status}
    return lambda http: http.put(f"/api/tasks/{task}", json=body)


def write(payload: Any, **options: Any) -> Any:
    return put(payload, task=WRITING, **options)


def raw(content: bytes, **headers: str) -> Any:
    sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return lambda http: http.put("/api/tasks/1", content=content, headers=sent)


def get(path: str, **headers: str) -> Any:
    return lambda http: http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def name(value: Any) -> Any:
    return lambda http: http.post("/api/labelers", json={"name": value})


def body(**fields: Any) -> Any:
    return lambda http: http.put("/api/tasks/1", json=fields)


FULL = {"labeler": 1, "revision": 0, "payload": whole(), "status": "done"}

WRONG: list[tuple[Any, int, str]] = [
    # Routes, methods and hosts.
    (get("/api"), 404, "There is nothing at /api"), (get("/api/export/labels"), 404, "there are demonstrations, comp"),
    (get("/%ff%00"), 404, "There is nothing at /"),
    (get("/" + "x" * 3000), 404, "There is nothing at /xxx"), (get("/api/tasks/1/2?labeler=1"), 404, "nothing at"),
    (lambda http: http.delete("/api/tasks/1"), 405, "asked by"), (lambda http: http.post("/api/task"), 415, "got ''"),
    (lambda http: http.put("/api/form", json={}), 405, "/api/form is asked by GET, got PUT"),
    (get("/api/form", host="evil.example"), 403, "The host must be localhost"),
    (get("/", host="evil.example:80"), 403, "'evil.example'"),
    # Who and what is asked for.
    (get("/api/task"), 400, "labeler must be a whole number from 0 up, got null"),
    (get("/api/task?labeler=x&kind=ranking"), 400, "got 'x'"), (get("/api/task?labeler=-1&kind=ranking"), 400, "'-1'"),
    (get("/api/task?labeler=1.0&kind=ranking"), 400, "'1.0'"), (get("/api/task?labeler=²&kind=ranking"), 400, "'²'"),
    (get(f"/api/task?labeler={'9' * 19}&kind=ranking"), 400, "whole number"),
    (get("/api/task?labeler=7&kind=ranking"), 404, "no labeler 7"),
    (get("/api/task?labeler=1&kind=ranking", sec_fetch_site="cross-site"), 403, "a page of another site"),
    (get("/api/task?labeler=1"), 400, "kind must be one of ranking, demonstration, got null"),
    (get("/api/task?labeler=1&kind=rank"), 400, "got 'rank'"), (get("/api/tasks"), 400, "labeler must be"),
    (get("/api/tasks?labeler=99"), 404, "no labeler 99"), (get("/api/tasks/1"), 400, "labeler must be"),
    (get("/api/tasks/99?labeler=1"), 404, "no task 99"), (get("/api/tasks/x?labeler=1"), 400, "the task's id must be"),
    (get("/api/tasks/1?labeler=2"), 404, "no labeler 2"),
    # Names.
    (name(""), 422, "1 to 80 printable characters, got 0"), (name("   "), 422, "got 0"), (name(7), 400, "name must be"),
    (name(None), 400, "name must be text"), (name("x" * 81), 422, "got 81"), (name("a\x00b"), 422, "printable"),
    (name("a‮b"), 422, "printable"), (lambda http: http.post("/api/labelers", json={}), 400, "field 'name', got none"),
    (lambda http: http.post("/api/labelers", json={"name": "A", "id": 1}), 400, "has no field 'id'"),
    (lambda http: http.post("/api/labelers", json=["A"]), 400, "must be a JSON object with name, got a list"),
    # Bodies.
    (raw(b""), 400, "must be JSON"), (raw(b"{"), 400, "must be JSON"), (raw(b"\xff"), 400, "its byte 0 is not"),
    (raw(b"[" * 100_000), 400, "nested so deeply"), (raw(b"1" * 5000), 400, "must be JSON"), (raw(b"null"), 400, "nul"),
    (raw(b'{"labeler": NaN}'), 400, "must be finite, got NaN"), (raw(b'{"a": 1, "a": 2}'), 400, "a field twice"),
    (raw(b'"' + b"x" * 400_000 + b'"'), 413, "at most 400,000 bytes"), (raw(b"{}", content_type="text/plain"), 415, ""),
    (raw(b"a=1", content_type="application/x-www-form-urlencoded"), 415, "must be application/json"),
    (body(), 400, "must have the field 'labeler', got none"), (body(**{**FULL, "extra": 1}), 400, "no field 'extra'"),
    (body(labeler=1, revision=0, status="done"), 400, "must have the field 'payload'"),
    (raw(b'{"\\ud800": 1}'), 400, "must have the field 'labeler', got '\\ud800'"),
    # The envelope of a label.
    (put(whole(), labeler=9), 404, "no labeler 9"), (put(whole(), labeler="1"), 400, "labeler must be a whole number"),
    (put(whole(), labeler=True), 400, "got true"), (put(whole(), labeler=1.0), 400, "got 1.0"),
    (put(whole(), labeler=2**63), 400, "whole number"), (put(whole(), revision=-1), 400, "revision must be"),
    (put(whole(), revision=None), 400, "got null"), (put(whole(), revision=3), 409, "changed elsewhere"),
    (put(whole(), task=77), 404, "no task 77"), (put(whole(), task="1x"), 400, "the task's id"),
    (put(whole(), status="finished"), 400, "status must be one of draft, done, skipped, got 'finished'"),
    (put(whole(), status=["done"]), 400, "got a list"), (put(whole(), status="new"), 400, "got 'new'"),
    # Rankings.
    (put(None), 422, "payload must be an object, got null"), (put([]), 422, "got a list"),
    (put({"response": "x"}), 422, "no field 'response'"), (put(whole(rating={})), 422, "did you mean 'ratings'?"),
    (put(whole(ranking={})), 422, "must be a list of lists"), (put(whole(ranking=["1", "2"])), 422, "list of lists"),
    (put(whole(ranking=[["1"], [], ["2"]]), status="draft"), 422, "ranking[1] must hold at least one answer"),
    (put(whole(ranking=[["1"], ["9"]]), status="draft"), 422, "not this prompt's, got '9'; its answers are 1, 2, 3, 4"),
    (put(whole(ranking=[[1]]), status="draft"), 422, "got 1; its answers are"),
    (put(whole(ranking=[[["1"]]]), status="draft"), 422, "got a list; its answers"),
    (put(whole(ranking=[["1", "2"], ["1"]]), status="draft"), 422, "each answer once, got '1' twice"),
    (put(whole(ranking=[["1"], ["2"]])), 422, "must place all 4 answers, got 2; still to place: 3, 4"),
    (put(whole(ranking=[])), 422, "got 0"), (put(whole(note=None)), 422, "note must be text, got null"),
    (put(whole(note="x" * 10_001), status="draft"), 422, "at most 10,000 characters, got 10,001"),
    # Ratings.
    (put(whole(ratings=[])), 422, "ratings must be an object"), (put(whole(ratings={})), 422, "overall quality (1..7)"),
    (put(whole(ratings={"9": {}})), 422, "got '9'"), (put(whole(ratings={"1": 5})), 422, "ratings['1'] must be an obj"),
    (put(rated(overall=0)), 422, "overall must be a whole number in 1..7 or null, got 0"),
    (put(rated(overall=8)), 422, "got 8"), (put(rated(overall=4.0)), 422, "got 4.0"),
    (put(rated(overall=True)), 422, "got true"), (put(rated(overall="7")), 422, "got '7'"),
    (put(rated(overall=10**400), status="draft"), 422, "got 1000"), (put(rated(overall=None)), 422, "none for '1'"),
    (put(rated(quality=3)), 422, "no field 'quality'"), (put(rated(fields=[])), 422, "fields must be an object"),
    (put(rated(fields={FIELD: 1})), 422, f"{FIELD} must be true, false or null, got 1"),
    (put(rated(fields={FIELD: "no"}), status="draft"), 422, "got 'no'"),
    (put(rated(fields={"halucination": True})), 422, "did you mean 'hallucination'?"),
    (put(rated(fields={FIELD: True})), 422, "all 11 yes/no fields of every answer, got 1 for '1'; still to answer"),
    # Demonstrations.
    (write({}), 422, "at least one character"), (write({"response": " \n\t"}), 422, "white space, got none"),
    (write({"response": None}), 422, "response must be text, got null"), (write({"response": 1}), 422, "got 1"),
    (write({"text": "x"}), 422, "no field 'text'"), (write("x", status="skipped"), 422, "payload must be an object"),
    (write({"response": "x" * 100_001}, status="draft"), 422, "at most 100,000 characters, got 100,001"),
    (write(whole(), status="draft"), 422, "Its fields are response"),
    (raw(json.dumps({**FULL, "payload": whole(note="\ud800"), "status": "draft"}).encode()), 422, "lone surrogate"),
]


def test_there_are_many() -> None:
    assert len(WRONG) >= 60


@pytest.mark.parametrize(("ask", "status", "told"), WRONG, ids=map(str, range(len(WRONG))))
def test_a_wrong_request_gets_its_status_and_its_reason(
    server: Running, ask: Callable[[httpx.Client], httpx.Response], status: int, told: str
) -> None:
    answer = ask(server.http)
    assert answer.status_code == status, answer.text
    assert told in answer.json()["error"]
    assert len(answer.json()["error"]) < 600


def test_a_body_that_never_ends_is_cut_off(server: Running) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    lines = ("PUT /api/tasks/1 HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Content-Length: 9")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    with contextlib.closing(socket.create_connection((host, int(port)), timeout=30)) as connection:
        connection.sendall(head + b"{")
        assert b" 408 " in connection.recv(4096)


def test_a_kind_that_is_not_labelled_here_is_refused(tmp_path: Path) -> None:
    with running(filled(tmp_path / "labels.sqlite"), kinds=["demonstration"]) as started:
        ann = signed_in(started.http, "Ann")
        answer = started.http.get("/api/task", params={"labeler": ann.labeler, "kind": "ranking"})
        assert (answer.status_code, answer.json()["error"]) == (
            422, "kind must be one of those labelled here, demonstration, got 'ranking'.")
        assert ann.put(RANKING, 0, whole()).status_code == 404
        assert started.http.get("/api/form").json()["kinds"] == ["demonstration"]


@pytest.mark.parametrize(("options", "told"), [
    ({"answers_per_prompt": 1}, "answers_per_prompt must be in 2..9 (the paper: 4..9)"),
    ({"answers_per_prompt": 10}, "answers_per_prompt"), ({"labels_per_task": 0}, "labels_per_task must be at least 1"),
    ({"lease_minutes": 0}, "lease_minutes must be positive"), ({"port": 70_000}, "port must be"),
    ({"kinds": []}, "kinds must name at least one"), ({"kinds": ["ranks"]}, "kinds must be"),
    ({"kinds": ["ranking", "ranking"]}, "none twice"), ({"checkpoints": ["a", "a/"]}, "checkpoints must differ"),
    ({"temperature": -0.1}, "temperature must not be negative"), ({"top_p": 1.5}, "top_p must be in (0, 1]"),
    ({"redraws": -1}, "redraws"), ({"ratings": "some"}, "ratings must be one of"), ({"database": " "}, "a file name"),
    ({"allowed_hosts": ["http://x"]}, "allowed_hosts must be names"), ({"prompt": "x"}, "did you mean 'prompts'?"),
])
def test_wrong_options_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        LabelConfig(**{"database": "labels.sqlite", **options})
    assert told in str(raised.value)


def test_an_object_and_options_beside_it_are_refused() -> None:
    with pytest.raises(ConfigError, match="not both, got port"):
        label(LabelConfig(database="labels.sqlite"), port=1)
    with pytest.raises(ConfigError, match="unknown option 'databas', did you mean 'database'"):
        igf.label(databas="labels.sqlite")


def test_an_address_that_is_taken_is_told_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["label", "--database", str(tmp_path / "new.sqlite"), "--port", str(port)]) == 2
    assert f"label: cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
