"""The labelling page in a real Chromium, as one labeler has it open: what the tests of the page share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instructgpt_fast.label.store import Answer, Store

SEA = ["Rivers carry salt to it.", "Salt.", "Because fish cry.", "I do not know."]


def database(path: Path, *answers: list[str], prompts: list[Any] | None = None) -> str:
    """The path of a new database: a prompt for each list of answers, which stand in the order given here."""
    store = Store(path)
    store.add_prompts(prompts or [f"Question {place}: why is the sea salty?" for place in range(len(answers))])
    for (prompt, _), texts in zip(store.unanswered(), answers, strict=True):
        store.add_answers(prompt, [Answer(text, f"runs/model-{i % 2}", i) for i, text in enumerate(texts)])
    store.close()
    return str(path)


class Desk:
    """The page as one labeler has it open; its console and its requests are kept for the end."""

    def __init__(self, page: Any, url: str, name: str | None = None) -> None:
        """name: who signs in; None where this browser remembers who it is."""
        self.page, self.url = page, url
        self.trouble: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda told: told.type in ("error", "warning") and self.trouble.append(told.text))
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(url)
        if name is not None:
            page.wait_for_selector("#name:focus")
            page.keyboard.type(name)
            page.keyboard.press("Enter")
        self.ready()

    def ready(self) -> None:
        """Wait until there is a task, or none left."""
        self.page.wait_for_selector("#task:not([hidden]), #nothing:not([hidden]), #own:not([hidden])")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def task(self) -> int:
        """The number of the task that is open; 0 for none."""
        return int(self.page.evaluate("task?.id ?? 0"))

    def work(self) -> Any:
        """The payload as it stands on the page."""
        return self.page.evaluate("work")

    def texts(self) -> list[str]:
        """The answers as they are shown, the first first."""
        return list(self.page.locator(".answer .text").all_text_contents())

    def letter(self, text: str) -> str:
        """The key of an answer."""
        return "abcdefghi"[self.texts().index(text)]

    def ranks(self) -> list[list[str]]:
        """The ranking as the board shows it: letters, those of a tie in the order of the alphabet."""
        rows = self.page.locator("#ranks .rank").all()
        return [sorted(row.locator(".letter").all_text_contents()) for row in rows]

    def rate(self, letter: str, overall: int, *yes: str) -> None:
        """By keys: choose an answer, rate it, answer these questions (by their keys) with yes, the others with no."""
        self.press(letter, str(overall), *yes, "x")

    def finish(self, best_first: str = "abcd") -> int:
        """Rate and rank everything by keys and submit it; returns the task's number."""
        task = self.task()
        for place, letter in enumerate(best_first):
            self.rate(letter, 7 - place)
            self.press("Shift+ArrowUp")
        self.press("Control+Enter")
        self.wait(lambda: self.page.evaluate("task?.id") != task)
        self.ready()
        return task

    def state(self, name: str) -> None:
        """Wait until the page says that it is saved, offline, held, ..."""
        self.page.wait_for_selector(f"#saved[data-state={name}]", state="attached")

    def wait(self, holds: Callable[[], bool]) -> None:
        """Wait on what the browser shows; its events are handled meanwhile."""
        for _ in range(3000):
            if holds():
                return
            self.page.wait_for_timeout(10)
        raise AssertionError("not shown within 30 s")

    def check(self, trouble: str | None = None) -> None:
        """Nothing went wrong unseen, but for what matches `trouble`, and nobody else was asked for anything."""
        assert [told for told in self.trouble if trouble is None or not re.search(trouble, told)] == []
        assert {url for url in self.requests if not url.startswith((self.url, "data:"))} == set()


@contextmanager
def desk(
    chromium: Any, url: str, name: str = "Ada", trouble: str | None = None, **options: Any
) -> Iterator[Desk]:
    """A labeler at the page, in a browser context of their own."""
    context = chromium.new_context(**options)
    context.set_default_timeout(30_000)
    try:
        opened = Desk(context.new_page(), url, name)
        yield opened
        opened.check(trouble)
    finally:
        context.close()
