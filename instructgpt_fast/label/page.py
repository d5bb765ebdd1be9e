"""The labelling page: one document with its style and scripts inside, made when it is first asked for."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from instructgpt_fast.confined_page import confined_page

ASSETS = Path(__file__).resolve().parent / "assets"
# One scope, in this order: later files use the names of earlier ones.
SCRIPTS = (
    "dom.js", "server.js", "drafts.js", "outbox.js", "ranking.js", "task.js", "answers.js", "rating.js", "board.js",
    "conflict.js", "own.js", "keys.js", "page.js",
)

router = APIRouter()


@router.get("/", include_in_schema=False)
def page() -> HTMLResponse:
    """The labelling page; it holds nothing itself and asks the routes below /api for everything."""
    document, headers = whole_page()
    return HTMLResponse(document, headers=headers)


@lru_cache(maxsize=1)
def whole_page() -> tuple[str, dict[str, str]]:
    """The document with everything in it, and the headers that confine it."""
    return confined_page(ASSETS, SCRIPTS)
