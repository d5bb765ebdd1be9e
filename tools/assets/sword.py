"""Reads the chapters of a Bible module in the SWORD zText format with OSIS markup."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

from assets.prose import Document, clean_line

# They tell Esther and Daniel a second time, with the Greek additions.
_REPEATED_BOOKS = {"EsthGr", "DanGr"}
_BLOCK_RECORD = struct.Struct("<III")  # offset, packed size, plain size
_BOOK_NAME = re.compile(r'<milestone n="([^"]*)" type="x-usfm-h"/>')
_CHAPTER = re.compile(
    r'<chapter n="(?P<number>\d+)" osisID="(?P<book>\w+)\.\d+" sID="(?P<id>[^"]+)"/>'
    r'(?P<body>.*?)<chapter eID="(?P=id)"/>',
    re.DOTALL,
)
_NOTE = re.compile(r"<note\b.*?</note>", re.DOTALL)
# What begins a new line: a paragraph, a title, a stanza, or the first line of a couplet.
_BREAK = re.compile(
    r'<div [^>]*type="x-p"/>|<lb\b[^>]*/>|</?title\b[^>]*>|<lg\b[^>]*>|<l level="1" sID=[^>]*>'
    r"|</?speaker\b[^>]*>|<item\b[^>]*>"
)
_TAG = re.compile(r"<[^>]+>")
_SPACE_BEFORE_POINT = re.compile(r" +(?=[,.;:?!’”)\]])")


def bible(module_directory: Path) -> list[Document]:
    """Return every chapter of both testaments in the module's order, without notes and titles of books."""
    documents = []
    for testament in ("ot", "nt"):
        text = _testament(module_directory, testament)
        names = [(match.start(), match[1]) for match in _BOOK_NAME.finditer(text)]
        for match in _CHAPTER.finditer(text):
            if match["book"] in _REPEATED_BOOKS:
                continue
            book = [name for start, name in names if start < match.start()][-1]
            documents.append(Document(f"{book}, Chapter {match['number']}", _paragraphs(match["body"])))
    return documents


def _testament(directory: Path, name: str) -> str:
    index = (directory / f"{name}.bzs").read_bytes()
    data = (directory / f"{name}.bzz").read_bytes()
    return "".join(
        zlib.decompress(data[offset : offset + packed]).decode("utf-8")
        for offset, packed, _ in _BLOCK_RECORD.iter_unpack(index)
    )


def _paragraphs(osis: str) -> list[str]:
    osis = _NOTE.sub(" ", osis.replace("\n", " "))
    lines = (_TAG.sub("", part) for part in _BREAK.sub("\n", osis).split("\n"))
    return [line for line in (_SPACE_BEFORE_POINT.sub("", clean_line(part)) for part in lines) if line]
