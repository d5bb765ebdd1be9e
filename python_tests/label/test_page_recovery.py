"""The labelling page when things break: the server is killed, a browser is killed, answers get lost on the way.

Chromium gives what a page keeps to the disk some seconds later, so that a browser that is killed while the server is
away too may lose these seconds; that is not tested here.
"""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.data import Comparison, read_jsonl
from instructgpt_fast.label import export
from instructgpt_fast.train import train
from python_tests.label.labelled import process, running
from python_tests.label.paged import SEA, Desk, database, desk
from python_tests.serve import browser
from python_tests.serve.chromium import program
from python_tests.serve.served import save as save_checkpoint

GONE = "ERR_|Failed to fetch"  # what Chromium's console says of a server that is not there


def own_chromium(playwright: Any, profile: Path) -> Any:
    """A Chromium in processes of its own, with a profile that outlives it."""
    context = playwright.chromium.launch_persistent_context(
        str(profile), executable_path=program(), headless=True, args=browser.flags()
    )
    context.set_default_timeout(30_000)
    return context


def kill(profile: Path) -> list[int]:
    """SIGKILL the Chromium with this profile, whose other processes end with it; returns what was killed."""
    killed = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        if f"--user-data-dir={profile}".encode() in words:
            os.kill(int(entry.name), signal.SIGKILL)
            killed.append(int(entry.name))
    return killed


def note(desk: Desk, words: str) -> None:
    desk.press("w")
    desk.page.keyboard.type(words)
    desk.press("Escape")


@pytest.mark.slow
def test_a_killed_server_gets_the_unsent_work_when_it_is_back(chromium: Any, tmp_path: Path) -> None:
    """SIGKILL in the middle of a label; the person goes on, submits, and even reloads nothing is lost."""
    path = database(tmp_path / "labels.sqlite", SEA, SEA)
    with process(tmp_path / "first.log", path) as first:
        url = first.url()
        context = chromium.new_context()
        context.set_default_timeout(30_000)
        ada = Desk(context.new_page(), url, "Ada")
        task = ada.task()
        ada.rate("a", 6)
        ada.state("saved")
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(30)
        for letter in "bcd":
            ada.rate(letter, 3)
        ada.press("a", "Shift+ArrowUp", "b", "Shift+ArrowUp", "c", "=", "d", "Shift+ArrowUp")
        note(ada, "while the server was away")
        ada.state("offline")
        ada.press("Control+Enter")
        ada.wait(lambda: "sent when it is back" in ada.page.text_content("#told"))
        given = ada.work()
    with process(tmp_path / "second.log", path, "--port", url.rsplit(":", 1)[1]) as second:
        assert second.url() == url
        ada.wait(lambda: ada.task() not in (0, task))
        assert ada.page.text_content("#progress-words") == "1 done, 1 left"
        ada.check(trouble=GONE)
        context.close()
    export(path, tmp_path / "out")
    (line,) = map(json.loads, (tmp_path / "out" / "comparisons.jsonl").read_text().splitlines())
    assert line["note"] == given["note"] == "while the server was away"
    assert sorted(line["ranks"]) == [1, 2, 2, 3]


def test_two_labelers_and_a_killed_browser(playwright: Any, tmp_path: Path) -> None:
    """Two browsers at once, one killed in the middle of a label: what was finished is there, the draft comes back in a
    new browser, and what both have finished trains a reward model."""
    path = database(tmp_path / "labels.sqlite", *[[f"{text} ({i})" for text in SEA] for i in range(6)])
    profiles = {name: tmp_path / name for name in ("ada", "bob", "new")}
    with running(path) as server:
        ada = Desk(own_chromium(playwright, profiles["ada"]).new_page(), server.url, "Ada")
        bob_context = own_chromium(playwright, profiles["bob"])
        bob = Desk(bob_context.new_page(), server.url, "Bob")
        finished = []
        for _ in range(2):
            assert ada.task() != bob.task(), "two people are not given the same task"
            finished += [ada.finish(), bob.finish("dcba")]
        ada.rate("c", 5, "q")
        ada.press("Shift+ArrowUp")
        note(ada, "half way")
        ada.state("saved")
        torn, draft = ada.task(), ada.work()
        bob.rate("a", 2)
        assert kill(profiles["ada"])
        finished.append(bob.finish())
        done = [one["id"] for labeler in (1, 2) for one in server.store.labels_of(labeler) if one["status"] == "done"]
        assert sorted(done) == sorted(finished)

        context = own_chromium(playwright, profiles["new"])
        again = Desk(context.new_page(), server.url, "ada")
        assert (again.task(), again.work()) == (torn, draft)
        finished.append(again.finish())
        for opened in (again, bob):
            opened.check()
        context.close()
        bob_context.close()
    exported = export(path, tmp_path / "out")
    assert exported.comparisons == len(set(finished)) == 6
    comparisons = str(tmp_path / "out" / "comparisons.jsonl")
    ranks = [record.ranks for record in read_jsonl(comparisons, Comparison)]
    assert all(sorted(one) == [1, 2, 3, 4] for one in ranks)
    result = train(
        "reward", init=save_checkpoint(tmp_path, "base"), data=comparisons, output_dir=str(tmp_path / "run"),
        max_steps=2, train_batch_size=6, progress=False, device="cpu",
    )
    assert result.checkpoint.is_dir()


def test_an_answer_that_gets_lost_is_no_conflict(chromium: Any, tmp_path: Path) -> None:
    """The server saved it, but the page never heard; it goes on, and finds its own words at the server."""
    with (
        running(database(tmp_path / "labels.sqlite", SEA)) as server,
        desk(chromium, server.url, trouble="ERR_FAILED|status of 409") as ada,
    ):
        statuses: list[int] = []

        def lose(route: Any) -> None:
            if route.request.method == "PUT":
                statuses.append(route.fetch().status)
                route.abort()
                ada.page.unroute("**/api/tasks/*")
            else:
                route.continue_()

        ada.page.route("**/api/tasks/*", lose)
        ada.page.on("response", lambda told: told.request.method == "PUT" and statuses.append(told.status))
        ada.press("a", "3")
        ada.state("offline")
        ada.press("4", "Shift+ArrowUp")
        ada.state("saved")
        assert statuses == [200, 409, 200]
        assert ada.page.locator("#conflict[open]").count() == 0
        assert server.store.task(1, ada.task())["payload"] == ada.work()


@pytest.mark.slow
def test_quick_typing_never_loses_the_last_key(chromium: Any, tmp_path: Path) -> None:
    """200 times: a burst of keys, and the page is gone before, while or after it is sent."""
    draw = random.Random(0)
    with running(database(tmp_path / "labels.sqlite", SEA)) as server, desk(chromium, server.url) as ada:
        ada.press("y")
        ada.page.wait_for_selector("#writing:visible")
        typed = ""
        for _ in range(200):
            ada.page.focus("#response")
            ada.press("Control+End")
            burst = "".join(draw.choices("abc z?u\n", k=draw.randint(1, 12)))
            ada.page.keyboard.type(burst, delay=draw.choice((0, 0, 5)))
            typed += burst
            ada.page.wait_for_timeout(draw.choice((0, 0, draw.randint(0, 40), 380 + draw.randint(0, 60))))
            ada.page.reload()
            ada.page.wait_for_selector("#task:visible")
            assert ada.page.input_value("#response") == typed
        ada.state("saved")
        assert server.store.task(1, ada.task())["payload"] == {"response": typed}


@pytest.mark.slow
def test_another_database_at_the_same_address_gets_nothing(chromium: Any, tmp_path: Path) -> None:
    """A page that outlives its server meets another one, whose tasks have the same numbers."""
    with process(tmp_path / "first.log", database(tmp_path / "one.sqlite", SEA)) as first:
        url = first.url()
        context = chromium.new_context()
        ada = Desk(context.new_page(), url, "Ada")
        first.process.kill()
        first.process.wait(30)
        ada.press("a", "3")
        ada.state("offline")
    other = database(tmp_path / "other.sqlite", [f"{text}!" for text in SEA])
    with process(tmp_path / "second.log", other, "--port", url.rsplit(":", 1)[1]) as second:
        assert second.url() == url
        ada.page.evaluate("fetch('api/labelers', {method: 'POST', body: JSON.stringify({name: 'Ada'}), "
                          "headers: {'Content-Type': 'application/json'}})")
        ada.state("refused")
        assert "other tasks" in ada.page.text_content("#saved")
        ada.page.reload()
        ada.ready()
        assert ada.work()["ranking"] == []
        assert all(rating["overall"] is None for rating in ada.work()["ratings"].values())
        context.close()


@pytest.mark.slow
def test_a_browser_that_keeps_nothing_says_so(chromium: Any, tmp_path: Path) -> None:
    """Its storage is full: work still reaches the server, and the person knows when it is nowhere else."""
    with process(tmp_path / "log", database(tmp_path / "labels.sqlite", SEA)) as started:
        context = chromium.new_context()
        context.set_default_timeout(30_000)
        ada = Desk(context.new_page(), started.url(), "Ada")
        ada.page.evaluate("void (Storage.prototype.setItem = () => { throw new DOMException('full'); })")
        ada.press("a", "3")
        ada.state("saving")
        ada.state("saved")
        started.process.kill()
        ada.press("4")
        ada.state("lost")
        ada.check(trouble=GONE)
        context.close()


KEYS = [
    *"abcd1234567jklmnopqrstuvwxyz0=,.", "Shift+ArrowUp", "Shift+ArrowDown", "ArrowLeft", "ArrowRight", "Backspace",
    "Control+Enter", "Control+Z", "Control+Shift+Z", "Escape", "Escape", "Escape",
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_any_keys_in_any_order_while_servers_come_and_go(chromium: Any, tmp_path: Path, seed: int) -> None:
    """Nothing goes wrong unseen, rankings stay rankings, and at the end the server has what the page shows."""
    draw = random.Random(seed)
    path = database(tmp_path / "labels.sqlite", *[[f"{text} ({i})" for text in SEA] for i in range(6)])
    port: tuple[str, ...] = ()
    context = chromium.new_context()
    ada: Desk | None = None
    for round_ in range(6):
        with process(tmp_path / f"{round_}.log", path, *port) as started:
            url = started.url()
            port = ("--port", url.rsplit(":", 1)[1])
            if ada is None:
                ada = Desk(context.new_page(), url, "Ada")
            for _ in range(4):
                ada.press(*draw.choices(KEYS, k=40))
                ada.page.wait_for_timeout(draw.choice((0, 300, 600)))
                placed, known = ada.page.evaluate(
                    "task?.kind === 'ranking' ? [work.ranking.flat(), task.answers.map((one) => one.id)] : [[], []]"
                )
                assert len(set(placed)) == len(placed)
                assert set(placed) <= set(known)
        ada.press(*draw.choices(KEYS, k=20))  # to a server that is gone
    assert ada is not None
    with process(tmp_path / "last.log", path, *port) as started:
        started.url()
        ada.press("Escape")
        ada.page.wait_for_selector("#saved:is([data-state=saved], [data-state=held])", state="attached")
        ada.page.reload()
        ada.ready()
        ada.check(trouble=f"{GONE}|status of 409")
        if ada.task():
            held = ada.page.evaluate("drafts.get(task.id)?.held ?? false")
            shown = ada.page.evaluate("[task.revision ? work : null, task.status]")
            told = ada.page.evaluate(f"getTask(labeler.id, {ada.task()}).then((one) => [one.payload, one.status])")
            assert held or shown == told
        context.close()
