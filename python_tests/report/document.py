"""A report as tests read it: its elements, its tables and its figures, by Python's own HTML parser."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"br", "col", "hr", "input", "link", "meta"}


@dataclass
class Node:
    """One element: attributes, children in order, text of its own among them."""

    name: str
    attributes: dict[str, str | None]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def classes(self) -> set[str]:
        return set((self.attributes.get("class") or "").split())

    def all(self, name: str | None = None, class_: str | None = None) -> list[Node]:
        """Elements below with this name and class, in the order of the document."""
        found: list[Node] = []
        for child in self.children:
            if isinstance(child, Node):
                if (name is None or child.name == name) and (class_ is None or class_ in child.classes):
                    found.append(child)
                found += child.all(name, class_)
        return found

    def figure(self, title: str) -> Node:
        """The only figure with this title."""
        (found,) = [figure for figure in self.all("figure") if figure.all("h4")[0].text == title]
        return found

    def rows(self) -> list[list[str]]:
        """The cells of the tables below, heads included."""
        return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in self.all("tr")]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(text: str) -> Node:
    """The document; every element must be closed in its turn."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root], f"<{reader.open[-1].name}> is left open"
    return reader.root
