"""Turns the sources of the corpus into documents: a title line, then one line for each paragraph."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from assets.rdata import read_lazy_load

NOVELS = {
    "sensesensibility": "Sense and Sensibility",
    "prideprejudice": "Pride and Prejudice",
    "mansfieldpark": "Mansfield Park",
    "emma": "Emma",
    "northangerabbey": "Northanger Abbey",
    "persuasion": "Persuasion",
}
# Text before the first chapter (title pages) is left out; so is what follows one of these lines.
_END_LINE = re.compile(r"^\s*(finis|the end|end of (the )?volume.*|a note on the text)\s*$", re.IGNORECASE)
_HEADING = re.compile(r"^\s*(?P<kind>volume|chapter)\s+(?P<number>[0-9]+|[ivxl]+)\s*\.?\s*$", re.IGNORECASE)
_ABBREVIATION = r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bNo\.)(?<!\b[A-Z]\.)"
_SENTENCE_END = re.compile(_ABBREVIATION + r"""(?<=[.!?])["”’']?\s+(?=["“A-Z])""")
_LOST_BREAK = re.compile(r"(?<=[a-z]{2}[.!?:])(?=[A-Z][a-z])")
_NOT_SPOKEN = re.compile(r"\s*[\[(](?:applause|laughter|footnote|p\.\d|\d+\])[^\])]*[\])]?", re.IGNORECASE)
_PARAGRAPH_CHARACTERS = 600


class Document(NamedTuple):
    """A chapter-sized text: its title and its paragraphs."""

    title: str
    paragraphs: list[str]

    def text(self) -> str:
        """Return the stored form: the title, then a line a paragraph."""
        return "\n".join([self.title, *self.paragraphs])


def clean_line(text: str) -> str:
    """Return `text` as one NFC line with single spaces, an em dash for `--`, and no control characters."""
    text = unicodedata.normalize("NFC", text).replace("\N{NON-BREAKING HYPHEN}", "-")
    text = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) != "Cc")
    text = re.sub(r" *-{2,} *", "\N{EM DASH}", text)
    return re.sub(r" {2,}", " ", text).strip()


def austen(data_directory: Path) -> list[Document]:
    """Return the chapters of the six novels from the R package's data directory."""
    novels = read_lazy_load(data_directory / "Rdata")
    return [
        chapter for key, title in NOVELS.items() for chapter in _chapters(title, [str(x) for x in novels[key]])
    ]


def _chapters(novel: str, lines: list[str]) -> list[Document]:
    documents: list[Document] = []
    volume, gathered, ended = "", list[str](), False

    def close_paragraph() -> None:
        # Underscores mark italics in these editions; they are typography, not text.
        paragraph = clean_line(" ".join(gathered).replace("-- ", "--").replace("_", ""))
        if documents and paragraph:
            documents[-1].paragraphs.append(paragraph)
        gathered.clear()

    for line in lines:
        heading = _HEADING.match(line)
        if heading or not line.strip() or _END_LINE.match(line):
            close_paragraph()
            ended = (ended or bool(_END_LINE.match(line))) and not heading
        elif not ended:
            gathered.append(line.strip())
        if heading and heading["kind"].lower() == "volume":
            volume = f", Volume {heading['number'].upper()}"
        elif heading:
            documents.append(Document(f"{novel}{volume}, Chapter {heading['number'].upper()}", []))
    close_paragraph()
    return documents


def moby_dick(data_directory: Path) -> list[Document]:
    """Return the 135 chapters and the epilogue of Moby-Dick."""
    documents = []
    contents = json.loads((data_directory / "contents.json").read_text("utf-8"))["text"]
    titles = dict(re.findall(r"CHAPTER (\d+)\. ((?:[^\n]|\n(?!\n))+)", contents))
    for name in [*(f"chapter_{number}" for number in range(1, 136)), "epilogue"]:
        record = json.loads((data_directory / f"{name}.json").read_text("utf-8"))
        paragraphs = [clean_line(part) for part in record["text"].split("\n\n")]
        number = name.removeprefix("chapter_")
        if name == "epilogue":
            paragraphs = paragraphs[1:]  # its heading is repeated as its first paragraph
        title = f"Chapter {number}. {clean_line(titles[number])}" if number in titles else "Epilogue"
        documents.append(Document(f"Moby-Dick, {title}", [part for part in paragraphs if part]))
    return documents


def state_of_the_union(data_directory: Path) -> list[Document]:
    """Return the addresses in order of year, broken into paragraphs."""
    documents = []
    for path in sorted(data_directory.glob("[0-9]*_*.json")):
        record = json.loads(path.read_text("utf-8"))
        text = _NOT_SPOKEN.sub("", record["text"]).replace("_", "")
        paragraphs = [part for piece in _LOST_BREAK.split(text) for part in _paragraphs(clean_line(piece))]
        documents.append(Document(f"State of the Union, {record['name']}, {record['year']}", paragraphs))
    return documents


def _paragraphs(text: str) -> list[str]:
    """Break a long line after a sentence once a paragraph of ordinary length has gathered."""
    paragraphs, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        if match.start() - start >= _PARAGRAPH_CHARACTERS:
            end = match.end()
            paragraphs.append(text[start:end].strip())
            start = end
    if text[start:].strip():
        paragraphs.append(text[start:].strip())
    return paragraphs
