"""What the tests of the page share: a Chromium, a server with two tasks, and Ada, who has it open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from python_tests.label.labelled import Running, running
from python_tests.label.paged import SEA, Desk, database, desk
from python_tests.serve import browser
from python_tests.serve.chromium import program


@pytest.fixture(scope="package")
def playwright() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="the page is driven by the package playwright")
    with api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="package")
def chromium(playwright: Any) -> Iterator[Any]:
    started = playwright.chromium.launch(executable_path=program(), headless=True, args=browser.flags())
    yield started
    started.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """Two prompts with four answers each, to label by one labeler each."""
    with running(database(tmp_path / "labels.sqlite", SEA, SEA)) as served:
        yield served


@pytest.fixture
def ada(chromium: Any, server: Running) -> Iterator[Desk]:
    with desk(chromium, server.url) as opened:
        yield opened
