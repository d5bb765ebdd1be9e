"""The chat page: one document with its style and script inside, made when it is first asked for.

The browser is told to let the page run this script alone, and to let it talk with this server alone; so nothing that a
model writes can load, send or run anything, even if it came to be read as markup.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

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
    style = _read("page.css")
    script = '"use strict";\n' + "\n".join(map(_read, SCRIPTS))
    document = _read("page.html").replace("/*{style}*/", style).replace("/*{script}*/", script)
    policy = {
        "default-src": "'none'", "script-src": _hash(script), "style-src": _hash(style), "connect-src": "'self'",
        "img-src": "data:", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }
    return document, {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }


def _read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
