"""The labelling page in a real Chromium, against the real server: what a labeler does and what reaches the database."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.label import form
from instructgpt_fast.label.page import ASSETS, SCRIPTS
from python_tests.label.labelled import ROOT, Running, running
from python_tests.label.paged import SEA, Desk, database, desk


def label(server: Running, task: int, labeler: int = 1) -> Any:
    """What the server has: the task with the labeler's label."""
    return server.store.task(labeler, task)


def test_the_document_is_whole_and_asks_only_the_server_for_the_form(server: Running) -> None:
    with urllib.request.urlopen(server.url) as response:
        document, headers = response.read().decode(), response.headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', document) == []
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", document)
    assert [field.name for field in form.FIELDS if field.name in document or field.question in document] == []
    assert {path.name for path in ASSETS.glob("*.js")} == set(SCRIPTS)


def test_a_ranking_by_keys_alone(ada: Desk, server: Running) -> None:
    """Every rating, ties, an undo and a note; the mouse is never used."""
    best, tied, bad, worst = (ada.letter(text) for text in SEA)
    task = ada.task()
    ada.rate(best, 7, "m")
    ada.rate(tied, 5)
    ada.rate(bad, 2, "j", "l")
    ada.rate(worst, 1, "j")
    for letter in (worst, bad, best):
        ada.press(letter, "Shift+ArrowUp")
    assert ada.ranks() == [[worst.upper()], [bad.upper()], [best.upper()]]
    ada.press("Shift+ArrowUp", "Shift+ArrowUp", worst, "Shift+ArrowDown", tied, "Shift+ArrowUp", "Shift+ArrowUp", "=")
    assert ada.ranks()[:2] == [[best.upper()], sorted([tied.upper(), bad.upper()])]
    ada.press("=")
    assert ada.ranks()[0] == sorted([best.upper(), tied.upper()])
    ada.press("Backspace")
    assert ada.ranks() == [[best.upper()], [bad.upper()], [worst.upper()]]
    assert ada.page.text_content("#left") == f"Still to do: rank {tied.upper()}"
    ada.press("Control+Enter")
    assert ada.task() == task, "what is not complete is not finished"
    ada.press("u", "Control+Shift+Z", "Control+Z")
    assert ada.ranks()[0] == sorted([best.upper(), tied.upper()])
    ada.press("w")
    ada.page.keyboard.type("jabu? = 7")
    given = ada.work()
    ada.press("Control+Enter")
    ada.wait(lambda: ada.page.evaluate("task.id") != task)
    ada.press("b")
    assert ada.page.evaluate("[chosen, work.note]") == [1, ""], "the note does not take the keys of the next task"
    saved = label(server, task)
    assert (saved["status"], saved["payload"]["note"]) == ("done", "jabu? = 7")
    assert saved["payload"]["ratings"] == given["ratings"]
    texts = {answer["id"]: answer["text"] for answer in saved["answers"]}
    by_text = {texts[id]: rating for id, rating in saved["payload"]["ratings"].items()}
    assert [by_text[text]["overall"] for text in SEA] == [7, 5, 2, 1]
    yes = [{name for name, value in by_text[text]["fields"].items() if value} for text in SEA]
    assert yes == [{"satisfies_constraint"}, set(), {"fails_instruction", "hallucination"}, {"fails_instruction"}]
    groups = [{texts[id] for id in group} for group in saved["payload"]["ranking"]]
    assert groups == [{SEA[0], SEA[1]}, {SEA[2]}, {SEA[3]}]
    assert ada.page.text_content("#progress-words") == "1 done, 1 left"


def grip(desk: Desk, letter: str) -> tuple[float, float]:
    """The middle of a card."""
    box = desk.page.locator(f".card:has(.letter:text-is('{letter.upper()}'))").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def edge(desk: Desk, row: int) -> tuple[float, float]:
    """Just inside the top of a rank; of the rank behind the last, the place below it."""
    rows = desk.page.locator("#ranks .rank")
    if row < rows.count():
        box = rows.nth(row).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + 3
    box = desk.page.locator("#ranks").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] - 2


class Mouse:
    def __init__(self, desk: Desk) -> None:
        self.mouse = desk.page.mouse

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse.move(*start)
        self.mouse.down()
        self.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        self.mouse.move(*end, steps=3)
        self.mouse.up()


class Finger:
    def __init__(self, desk: Desk) -> None:
        self.session = desk.page.context.new_cdp_session(desk.page)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        for kind, at in (("Start", start), ("Move", middle), ("Move", end), ("End", None)):
            points = [] if at is None else [{"x": at[0], "y": at[1]}]
            self.session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})


@pytest.mark.parametrize("pointer", [Mouse, pytest.param(Finger, marks=pytest.mark.slow)])
def test_cards_are_dragged_between_and_into_ranks(chromium: Any, server: Running, pointer: Any) -> None:
    options = {"viewport": {"width": 360, "height": 700}, "has_touch": True} if pointer is Finger else {}
    with desk(chromium, server.url, **options) as ada:
        ada.page.locator("#moves").scroll_into_view_if_needed()
        hand = pointer(ada)

        def drag(letter: str, end: tuple[float, float]) -> list[list[str]]:
            hand.drag(grip(ada, letter), end)
            return ada.ranks()

        assert drag("a", edge(ada, 0)) == [["A"]]
        assert drag("b", edge(ada, 1)) == [["A"], ["B"]]
        assert drag("c", edge(ada, 0)) == [["C"], ["A"], ["B"]]
        assert drag("d", grip(ada, "a")) == [["C"], ["A", "D"], ["B"]]
        assert drag("c", edge(ada, 2)) == [["A", "D"], ["C"], ["B"]]
        assert drag("d", edge(ada, 2)) == [["A"], ["C"], ["D"], ["B"]]
        pool = ada.page.locator("#pool").bounding_box()
        assert drag("c", (pool["x"] + 20, pool["y"] + 8)) == [["A"], ["D"], ["B"]]
        assert drag("b", (5, 5)) == [["A"], ["D"], ["B"]], "dropped outside, it stays where it was"
        assert ada.page.locator(".ghost").count() == 0
        ada.page.click("#moves >> text=Tie above")
        assert ada.ranks() == [["A"], ["D"], ["B", "C"]], "the buttons act on the card that was dropped last"


@pytest.mark.slow
def test_a_drag_is_given_up_by_the_browser(ada: Desk) -> None:
    """As when the finger's drag becomes a scroll, or the window loses the pointer."""
    ada.press("a", "Shift+ArrowUp", "b", "Shift+ArrowUp")
    page = ada.page
    page.mouse.move(*grip(ada, "b"))
    page.mouse.down()
    page.mouse.move(*edge(ada, 0), steps=3)
    assert page.locator(".ghost").count() == 1
    page.locator(".lifted").dispatch_event("pointercancel")
    assert page.locator(".ghost, .lifted, .insert, .tie").count() == 0
    page.mouse.up()
    assert ada.ranks() == [["A"], ["B"]]


def test_demonstrations(ada: Desk, server: Running) -> None:
    ada.press("y")
    ada.page.wait_for_selector("#writing:visible")
    task = ada.task()
    ada.press("w")
    ada.page.keyboard.type("  The sea is salty:\n\tz, u and ? are letters here. 🐟")
    assert ada.page.text_content("#counts") == "12 words, 51 characters"
    ada.press("Control+Enter")
    ada.wait(lambda: ada.page.evaluate("task.id") != task)
    assert ada.page.input_value("#response") == ""
    assert ada.page.text_content("#left") == "Still to do: an answer"
    ada.press("Escape", "z")
    ada.page.wait_for_selector("#nothing:visible")
    ada.press("u")
    ada.page.wait_for_selector("#opened:visible:has-text('You skipped this task')")
    ada.press(",")
    ada.wait(lambda: ada.task() == task)
    assert "You finished this label" in ada.page.text_content("#opened")
    saved = label(server, task)
    assert (saved["status"], saved["payload"]) == (
        "done", {"response": "  The sea is salty:\n\tz, u and ? are letters here. 🐟"}
    )
    assert [one["status"] for one in server.store.labels_of(1)] == ["skipped", "done"]


def test_a_reload_keeps_the_draft(ada: Desk, server: Running) -> None:
    """Also what has not been sent yet: the page is left at once after the last key."""
    ada.rate("b", 3, "k")
    ada.press("Shift+ArrowUp", "w")
    ada.page.keyboard.type("to the last key")
    given, task = ada.work(), ada.task()
    ada.page.reload()
    ada.ready()
    assert (ada.task(), ada.work()) == (task, given)
    ada.state("saved")
    assert label(server, task)["payload"] == given
    assert label(server, task)["status"] == "draft"


def test_own_labels_are_looked_at_and_corrected(ada: Desk, server: Running) -> None:
    """A finished label stays finished at the server until its correction is; one can think better of it."""
    first = ada.finish("abcd")
    before = label(server, first)
    ada.press("u")
    ada.wait(lambda: ada.task() == first)
    assert "You finished this label" in ada.page.text_content("#opened")
    ada.press("d", "Shift+ArrowUp", "1")
    ada.state("held")
    ada.page.reload()
    ada.ready()
    ada.press("y", "y")
    ada.page.wait_for_selector("#own-list .own")
    ada.page.click(".own:has-text('unsaved')")
    ada.wait(lambda: ada.task() == first)
    assert ada.ranks() == [["A"], ["B"], ["D"], ["C"]]
    assert label(server, first) == before
    ada.press("z")
    ada.page.wait_for_selector("#own-list .own")
    assert label(server, first) == before
    ada.page.click("#own-list .own >> nth=0")
    ada.wait(lambda: ada.ranks() == [["A"], ["B"], ["C"], ["D"]])
    ada.press("b", "Shift+ArrowUp", "Control+Enter")
    ada.page.wait_for_selector("#own-list .own")
    after = label(server, first)
    assert after["status"] == "done"
    assert after["payload"]["ranking"][:2] == before["payload"]["ranking"][1::-1]
    assert after["payload"]["ratings"] == before["payload"]["ratings"]


@pytest.mark.parametrize("mine", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_two_versions_are_both_shown(ada: Desk, server: Running, mine: bool) -> None:
    """The label was changed elsewhere; the person chooses, and works on from there."""
    ada.press("a", "3")
    ada.state("saved")
    task = ada.task()
    other = {**ada.work(), "note": "<b>from elsewhere</b>"}
    server.store.save(1, task, label(server, task)["revision"], other, "draft")
    ada.press("4")
    ada.page.wait_for_selector("#conflict[open]")
    shown = ada.page.locator(".version").all_text_contents()
    assert "A overall4" in shown[0]
    assert "A overall3" in shown[1]
    assert "<b>from elsewhere</b>" in shown[1]
    assert "B overall" not in shown[0] + shown[1], "what is equal is left out"
    ada.press("Escape", "Enter", "Space")
    assert ada.page.locator("#conflict[open]").count() == 1, "whoever is typing chooses nothing by it"
    ada.page.click(f".version >> nth={0 if mine else 1} >> button")
    ada.state("saved")
    ada.trouble = [told for told in ada.trouble if "409" not in told]
    expected = (4, "") if mine else (3, "<b>from elsewhere</b>")
    first = ada.page.evaluate("task.answers[0].id")
    ada.press("b", "6")
    ada.state("saved")
    saved = label(server, task)["payload"]
    assert (saved["ratings"][first]["overall"], saved["note"]) == expected == (
        ada.work()["ratings"][first]["overall"], ada.page.input_value("#note")
    )


def test_markup_stays_text_and_spaces_stay(chromium: Any, tmp_path: Path) -> None:
    markup = '<img src=x onerror="hacked=1"></script><script>hacked=1</script>'
    answers = [f"{markup}\n  two\n\n\tthree", "line\n" * 200, "مرحبا", "ok"]
    prompt = [{"role": "system", "content": markup}, {"role": "user", "content": "مرحبا؟"}]
    with (
        running(database(tmp_path / "labels.sqlite", answers, prompts=[prompt])) as server,
        desk(chromium, server.url, name=markup[:40]) as visit,
    ):
        page = visit.page
        assert sorted(visit.texts()) == sorted(answers)
        assert page.locator("#prompt .text").all_text_contents() == [markup, "مرحبا؟"]
        assert page.locator("#prompt h3").all_text_contents() == ["System", "User"]
        assert page.text_content("#who") == markup[:40]
        assert page.evaluate("[document.images.length, document.scripts.length, typeof hacked]") == [0, 1, "undefined"]
        style = "(text) => [getComputedStyle(text).whiteSpace, getComputedStyle(text).direction]"
        shown = page.locator(".answer .text").all()
        directions = dict(zip(visit.texts(), (text.evaluate(style) for text in shown), strict=True))
        assert directions["مرحبا"] == ["pre-wrap", "rtl"]
        assert directions["ok"] == ["pre-wrap", "ltr"]
        long = page.locator(".answer").nth(visit.texts().index(answers[1]))
        folded = long.bounding_box()["height"]
        assert folded < 600
        visit.press(visit.letter(answers[1]), "v")
        assert long.bounding_box()["height"] > 3000
        assert long.locator("[aria-expanded=true]").count() == 1
        visit.press("v")
        assert long.bounding_box()["height"] == folded
        assert page.locator(".unfold").count() == 1, "short answers have nothing to unfold"


def test_keys_are_not_stolen(ada: Desk) -> None:
    """From text fields, from the browser's own shortcuts, from radios; and the help lists those that act."""
    page = ada.page
    ada.press("Control+a", "Alt+j", "Control+j")
    assert all(value is None for value in ada.work()["ratings"][page.evaluate("answerAt(0).id")]["fields"].values())
    ada.press("a")
    page.focus("input[name=overall][value='3']")
    ada.press("Space", "ArrowRight")
    assert ada.work()["ratings"][page.evaluate("answerAt(0).id")]["overall"] == 4
    assert page.evaluate("chosen") == 0
    ada.press("?")
    page.wait_for_selector("#help[open]")
    told = page.text_content("#keys")
    assert all(field.question in told for field in form.FIELDS)
    document = (ROOT / "docs" / "labelling.md").read_text()
    assert [key for key in page.locator("#keys kbd").all_text_contents() if key not in document] == []
    ada.press("b")
    assert page.evaluate("chosen") == 0, "keys do not act behind the help"
    page.uncheck("#single-keys")
    ada.press("Escape", "b")
    assert page.evaluate("chosen") == 0
    page.reload()
    ada.ready()
    ada.press("b")
    assert page.evaluate("chosen") == 0, "the choice is remembered"
    ada.press("Control+Z")


@pytest.mark.slow
def test_one_tab_works_at_a_time(ada: Desk, server: Running) -> None:
    """A second tab of the same browser asks first; the work goes with the labeler, there and back."""
    ada.press("a", "5")
    other = ada.page.context.new_page()
    other.goto(server.url)
    other.wait_for_selector("#elsewhere:visible")
    other.click("#here")
    other.wait_for_selector("#task:visible")
    ada.page.wait_for_selector("#elsewhere:visible")
    overall = "work.ratings[answerAt(0).id].overall"
    assert other.evaluate(overall) == 5
    other.keyboard.press("6")
    ada.page.click("#here")
    ada.page.wait_for_selector("#task:visible")
    assert ada.page.evaluate(overall) == 6
    ada.state("saved")
    assert label(server, ada.task())["payload"] == ada.work()
