"""A page as one document with its style and script inside, and the headers that confine it to the server it came from.

The browser is told to run this script alone (by its hash) and to let it talk with this server alone; so nothing that a
model or a person writes can load, send or run anything, even if it came to be read as markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path


def confined_page(assets: Path, scripts: Sequence[str]) -> tuple[str, dict[str, str]]:
    """`page.html` of the folder with `page.css` and the scripts, joined in their order, in its two marked places.

    Returns the document and the headers to send with it. Raises OSError when a file is missing.
    """
    style = _read(assets / "page.css")
    script = '"use strict";\n' + "\n".join(_read(assets / name) for name in scripts)
    document = _read(assets / "page.html").replace("/*{style}*/", style).replace("/*{script}*/", script)
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


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
