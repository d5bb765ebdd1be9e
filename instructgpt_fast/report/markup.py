"""Elements of HTML and SVG as text that is safe by the way it is made: whatever is not `Markup` already is escaped."""

from __future__ import annotations

import re
from html import escape

__all__ = ["Markup", "element", "join"]

# What neither HTML nor SVG may hold, even escaped: control characters, lone halves of surrogate pairs, noncharacters.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

VOID = frozenset({"br", "col", "hr", "input", "link", "meta"})


class Markup(str):
    """Text that is markup already, and is put into a document as it is."""

    __slots__ = ()


def join(*parts: object) -> Markup:
    """Parts one after the other; those that are not `Markup` are escaped, None is nothing."""
    return Markup("".join(_safe(part) for part in parts if part is not None))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """<name attributes>children</name>.

    Attributes: a trailing underscore is dropped (class_), inner ones become hyphens (aria_label); True is an attribute
    without a value, None and False are none at all. There is no `style`: the page's policy would refuse it.
    """
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{_plain(str(value))}"'


def _safe(part: object) -> str:
    return part if isinstance(part, Markup) else _plain(str(part))


def _plain(text: str) -> str:
    return escape(_FORBIDDEN.sub("\ufffd", text))
