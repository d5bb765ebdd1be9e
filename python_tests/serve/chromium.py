"""A Chromium for tests. Without one they are skipped, in continuous integration they fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from python_tests.serve import browser


def program() -> str:
    """A Chromium that starts."""
    found = browser.find()
    if found is None:
        told = "no Chromium that starts; `make browser` finds or installs one"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(told)
    return found


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """It runs with a profile of its own, driven by playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="the page is driven by the package playwright")
    path = program()
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, headless=True, args=browser.flags())
        yield started
        started.close()
