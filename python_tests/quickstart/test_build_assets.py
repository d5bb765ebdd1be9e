"""The readers behind tools/build_assets.py, on small inputs made here."""

from __future__ import annotations

import gzip
import struct
import sys
import zlib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from assets import prose, quiz, rdata, sword


def r_string(text: str) -> bytes:
    return struct.pack(">ii", 9, len(text)) + text.encode()


def r_strings(*texts: str) -> bytes:
    return struct.pack(">ii", 16, len(texts)) + b"".join(map(r_string, texts))


HEADER = b"X\n" + struct.pack(">iii", 2, 0, 0)
NULL = struct.pack(">i", 254)


def r_named_list(**items: bytes) -> bytes:
    names = struct.pack(">ii", 0x402, 1) + r_string("names") + r_strings(*items) + NULL
    return struct.pack(">ii", 19 | 0x200, len(items)) + b"".join(items.values()) + names


def test_r_lazy_load_database(tmp_path: Path) -> None:
    packed = []
    for text in ("one", "two"):
        plain = HEADER + r_strings(text, "more")
        packed.append(struct.pack(">I", len(plain)) + zlib.compress(plain))
    (tmp_path / "data.rdb").write_bytes(b"".join(packed))
    places = {
        name: struct.pack(">iiii", 13, 2, start, len(piece))
        for name, start, piece in (("a", 0, packed[0]), ("b", len(packed[0]), packed[1]))
    }
    index = HEADER + r_named_list(variables=r_named_list(**places))
    (tmp_path / "data.rdx").write_bytes(gzip.compress(index))
    assert rdata.read_lazy_load(tmp_path / "data") == {"a": ["one", "more"], "b": ["two", "more"]}


def test_r_reader_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="begins with"):
        rdata.RReader(b"A\n")
    with pytest.raises(ValueError, match="R type 4 is not one"):
        rdata.RReader(HEADER + struct.pack(">ii", 4, 0)).value()
    with pytest.raises(ValueError, match="ends 2 bytes early"):
        rdata.RReader(HEADER + struct.pack(">ii", 9, 5) + b"abc").value()


@pytest.mark.parametrize(
    ("pattern", "strings"),
    [
        ("Algiers", ["Algiers"]),
        ("cat|fox", ["cat", "fox"]),
        ("{the }sparrow", ["the sparrow", "sparrow"]),
        ("W[illia|]m [I|1]", ["William I", "William 1", "Wm I", "Wm 1"]),
        ("{J{ohn} }Adams", ["John Adams", "J Adams", "Adams"]),
        ("21{ (Fibonacci)}", ["21"]),
        ("n\\!\\{", ["n!{"]),
        ("San Jos['\be|e\b']", ["San Jose"]),
    ],
)
def test_quiz_patterns(pattern: str, strings: list[str]) -> None:
    assert quiz.expand(pattern) == strings


def test_quiz_pattern_with_a_stray_bracket() -> None:
    with pytest.raises(ValueError, match="closes a bracket that is not open, at 1"):
        quiz.expand("a]b")


def test_novel_lines_become_chapters() -> None:
    text = "TITLE||VOLUME I||CHAPTER I||A line|broken--|here.||Next _one_.|FINIS|x"
    assert prose._chapters("Emma", text.split("|")) == [
        prose.Document("Emma, Volume I, Chapter I", ["A line broken\N{EM DASH}here.", "Next one."])
    ]


def test_lost_paragraphs_break_after_a_long_one() -> None:
    sentence = "We met Mr. Smith in the U.S. Senate. "
    parts = prose._paragraphs((sentence * 40).strip())
    assert " ".join(parts) == (sentence * 40).strip()
    assert len(parts) > 1 and all(part.endswith("Senate.") for part in parts)


def test_bible_markup(tmp_path: Path) -> None:
    osis = (
        b'<milestone n="Genesis" type="x-usfm-h"/><div sID="g1" type="x-p"/><chapter n="1" osisID="Gen.1" sID="Gen.1"/>'
        b'In the <w lemma="x">beginning</w>, God<note placement="foot">a note</note>created. '
        b'<l level="1" sID="a"/>One<l eID="a" level="1"/> <l level="2" sID="b"/>two.<l eID="b" level="2"/>'
        b'<l level="1" sID="c"/>Three <note>n</note>.<chapter eID="Gen.1"/>'
    )
    for testament, text in (("ot", osis), ("nt", b"")):
        packed = zlib.compress(text)
        (tmp_path / f"{testament}.bzz").write_bytes(packed)
        (tmp_path / f"{testament}.bzs").write_bytes(struct.pack("<III", 0, len(packed), len(text)))
    assert sword.bible(tmp_path) == [
        prose.Document("Genesis, Chapter 1", ["In the beginning, God created.", "One two.", "Three."])
    ]
