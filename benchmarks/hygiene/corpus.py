"""Builds the corpus of the hygiene benchmark from Debian packages that anyone can fetch; no root is needed.

python -m benchmarks.hygiene.corpus --folder /tmp/corpus-hygiene

documents.jsonl: manuals and dictionaries, a document a file or an entry. prompts.jsonl: short lines, which are synopses
of Debian packages with their maintainer as the user, definitions of WordNet and GCIDE, and sentences of the manuals.
The texts are free but not all ours to pass on: they are fetched, never kept in the repository.
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

PACKAGES = ("linux-doc-6.1", "dict-gcide", "wordnet-base", "postgresql-doc-15", "python3.11-doc",
            "libreoffice-help-en-us", "sqlite3-doc")
PROMPTS = 1_000_000
_HIDDEN = re.compile(r"(?is)<(script|style|head|nav|svg)\b.*?</\1>|<!--.*?-->")
_TAG = re.compile(r"<[^>]*>")
_SPACES = re.compile(r"[ \t]+")
_EMPTY = re.compile(r"\n\s*\n+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])|\n\s*\n")


def fetch(folder: Path) -> dict[str, str]:
    """Download and unpack the packages; returns the version of each."""
    versions = {}
    for name in PACKAGES:
        target = folder / "unpacked" / name
        if not list(folder.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", name], cwd=folder, check=True)
        file = max(folder.glob(f"{name}_*.deb"))
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            subprocess.run(["dpkg", "-x", str(file), str(target)], check=True)
        versions[name] = file.name.split("_")[1].replace("%3a", ":")
    return versions


def plain(markup: str) -> str:
    """The text of an HTML page."""
    text = html.unescape(_TAG.sub("", _HIDDEN.sub("", markup)))
    return _EMPTY.sub("\n\n", _SPACES.sub(" ", text)).strip()


def documents(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (package, text) of every page, source file and dictionary entry."""
    for name in PACKAGES:
        for path in sorted((folder / "unpacked" / name).rglob("*")):
            if not path.is_file() or path.is_symlink() or "changelog" in path.name.lower():
                continue
            if path.suffix == ".dz":
                for entry in gzip.decompress(path.read_bytes()).decode("utf-8", "replace").split("\n\n"):
                    yield name, entry.strip()
            elif path.suffix == ".html":
                yield name, plain(path.read_text(encoding="utf-8", errors="replace"))
            elif path.suffix in (".txt", ".rst"):
                yield name, path.read_text(encoding="utf-8", errors="replace").strip()
            elif path.suffix == ".gz" and path.name.endswith((".rst.gz", ".txt.gz")):
                yield name, gzip.decompress(path.read_bytes()).decode("utf-8", "replace").strip()
            elif path.name.startswith("data.") and name == "wordnet-base":
                for line in path.read_text(encoding="utf-8").splitlines():
                    if " | " in line and not line.startswith(" "):
                        yield name, definition(line)


def definition(line: str) -> str:
    """A line of WordNet's data files as words and their meaning."""
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    words = [fields[4 + 2 * place].replace("_", " ") for place in range(int(fields[3], 16))]
    return f"{', '.join(words)}: {gloss.strip()}"


def synopses() -> Iterator[tuple[str, str]]:
    """Yield (maintainer, synopsis) of every package that the package lists know."""
    listed = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    maintainer = name = ""
    for line in listed.splitlines():
        if line.startswith("Package: "):
            name = line[9:]
        elif line.startswith("Maintainer: "):
            maintainer = line[12:]
        elif line.startswith("Description: "):
            yield maintainer, f"{name}: {line[13:]}"


def write(file: IO[str], record: dict[str, Any]) -> int:
    """Write a record; returns its length."""
    return file.write(json.dumps(record, ensure_ascii=False) + "\n")


def build(folder: Path) -> None:
    """Write both files and what they were made of."""
    folder.mkdir(parents=True, exist_ok=True)
    versions = fetch(folder)
    counts = {"documents": 0, "prompts": 0}
    with (folder / "documents.jsonl").open("w", encoding="utf-8") as long, \
            (folder / "prompts.jsonl").open("w", encoding="utf-8") as short:
        for maintainer, synopsis in synopses():
            counts["prompts"] += bool(write(short, {"prompt": synopsis, "user": maintainer}))
        for name, text in documents(folder):
            if not text:
                continue
            counts["documents"] += bool(write(long, {"text": text, "package": name}))
            for sentence in _SENTENCE.split(text):
                line = " ".join(sentence.split())
                if 20 <= len(line) <= 600 and counts["prompts"] < PROMPTS:
                    counts["prompts"] += bool(write(short, {"prompt": line, "package": name}))
    sizes = {name: (folder / name).stat().st_size for name in ("documents.jsonl", "prompts.jsonl")}
    about = {"packages": versions, **counts, "bytes": sizes}
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(about, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/corpus-hygiene"))
    build(parser.parse_args().folder)
