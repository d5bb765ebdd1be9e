"""The chat page: one document with its style and script inside, made when it is first asked for."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from instructgpt_fast.confined_page import confined_page

ASSETS = Path(__file__).resolve().parent / "assets"
SCRIPTS = ("client.js", "answer.js", "card.js", "page.js")

router = APIRouter()


@router.get("/", include_in_schema=False)
def page() -> HTMLResponse:
    """The chat page; needs no key, because it holds nothing: it asks for one where the server does."""
    document, headers = whole_page()
    return HTMLResponse(document, headers=headers)


@lru_cache(maxsize=1)
def whole_page() -> tuple[str, dict[str, str]]:
    """The document with everything in it, and the headers that confine it."""
    return confined_page(ASSETS, SCRIPTS)
