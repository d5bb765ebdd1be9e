"""Private data: the labelled file's recorded figures, each kind's edges, places under folding, linear time."""

from __future__ import annotations

import importlib.util
import json
import random

import pytest
from stdnum import luhn

from benchmarks import pii as measuring
from instructgpt_fast.data.hygiene import pii
from instructgpt_fast.data.hygiene.pii import Finding, find_pii, mask_pii
from instructgpt_fast.data.hygiene.pii_fold import fold
from instructgpt_fast.data.hygiene.pii_keys import entropy_bits
from instructgpt_fast.errors import ConfigError

LINES = [*measuring.labelled("tuned"), *measuring.labelled("held_out")]
# The least that either half may show: below them the filter is another one, and the page of figures is wrong.
PRECISION_AT_LEAST = {"key": 0.95, "email": 0.95, "iban": 0.98, "card": 0.98, "ip": 0.98, "phone": 0.90}
RECALL_AT_LEAST = {"key": 0.92, "email": 0.95, "iban": 0.98, "card": 0.98, "ip": 0.98, "phone": 0.92}


def found(text: str, *regions: str) -> list[tuple[str, str]]:
    return [(kind, text[start:end]) for kind, start, end in find_pii(text, regions)]


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    return measuring.results()


def test_the_recorded_figures_are_what_the_code_gives(results: dict[str, dict]) -> None:
    assert json.loads(measuring.RESULT.read_text(encoding="utf-8")) == results


def test_the_page_shows_the_recorded_figures(results: dict[str, dict]) -> None:
    page = (measuring.ROOT / "docs" / "pii.md").read_text(encoding="utf-8")
    assert measuring.table(results) in page, "docs/pii.md: put in what python -m benchmarks.pii prints"


@pytest.mark.parametrize("half", measuring.HALVES)
@pytest.mark.parametrize("kind", pii.KINDS)
def test_precision_and_recall_stay_above_their_bounds(results: dict[str, dict], half: str, kind: str) -> None:
    shares = results[half]["kinds"][kind]
    assert shares["labelled"] >= 14
    assert shares["precision"]["value"] >= PRECISION_AT_LEAST[kind]
    assert shares["recall"]["value"] >= RECALL_AT_LEAST[kind]


def test_the_labelled_file_is_sound() -> None:
    assert len(LINES) >= 400 and len({line.text for line in LINES}) == len(LINES)
    for line in LINES:
        assert line.spans == tuple(sorted(line.spans, key=lambda span: span.start))
        for kind, start, end in line.spans:
            inside = line.text[start:end]
            assert kind in pii.KINDS and inside and inside == inside.strip()
            if kind == "card":
                assert luhn.is_valid("".join(c for c in fold(inside).text if c.isdigit()))


def test_what_is_masked_is_not_found_again() -> None:
    for line in LINES:
        masked = mask_pii(line.text, find_pii(line.text, line.regions))
        assert find_pii(masked, line.regions) == [], masked


@pytest.mark.parametrize("text, expected", [
    ("https://ann:hunter22x@example.com/", [("key", "hunter22x")]),  # the password, not pass@host as an address
    ("ssh://git@example.com/repo", []),
    ("x@example.com@example.org", []),
    ("ann@example", []),
    ("a" * 70 + "@example.com", [("email", "a" * 63 + "a@example.com")]),
    ("2001:db8::8a2e:370:7334%eth0", [("ip", "2001:db8::8a2e:370:7334")]),
    ("::ffff:203.0.113.9", [("ip", "203.0.113.9")]),
    ("224.0.0.1 169.254.0.1 100.64.0.1 172.16.0.1 fd00::1 ff02::1", []),
    ("8.8.8.8", []),  # four small numbers are a version, where nothing speaks of hosts
    ("ping 8.8.8.8", [("ip", "8.8.8.8")]),
    ("8.8.8.8:53", [("ip", "8.8.8.8")]),
    ("203.0.113.8", [("ip", "203.0.113.8")]),
    ("Upgraded to 4.6.185.25; requires brotli>=1.200.0.0", []),
    ("4111-1111 1111-1111", []),  # separators of two kinds
    ("4111 1111 1111 1111, +12025550143", [("card", "4111 1111 1111 1111"), ("phone", "+12025550143")]),
    ("54E8 5546 5531 5617 5968 59BE 6495 6496 6497 6498", []),
    ("2024 added 4111 1111 1111 1111 in 2025", [("card", "4111 1111 1111 1111")]),
    ("6495 6496 6497 6498 6499 649A", []),
    ("DE89 3704 0044 0532 0130 00 0", [("iban", "DE89 3704 0044 0532 0130 00")]),
    ("DE89 3704 0044 0532 0130 000", []),
    ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\ncut off here.",
     [("key", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B")]),
    ("token: sentence_piece_2", []),
    ("token: kq82hz01mw77pd34", [("key", "kq82hz01mw77pd34")]),
    ('password: "aaaaaaaa1"', []),  # 4.5 bits
    ("", []),
])
def test_edges(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


def test_two_private_keys_are_two_findings() -> None:
    key = "-----BEGIN {0} PRIVATE KEY-----\nMIIEvQIBADANBgkq\n-----END {0} PRIVATE KEY-----"
    first, second = key.format("RSA"), key.format("EC")
    assert found(f"{first}\nand\n{second}") == [("key", first), ("key", second)]


def test_national_numbers_count_for_the_regions_alone() -> None:
    text = "office (202) 555-0143, London 020 7946 0018, Paris +33 1 99 00 12 34"
    paris = ("phone", "+33 1 99 00 12 34")
    assert found(text) == [paris]
    assert found(text, "US") == [("phone", "(202) 555-0143"), paris]
    assert found(text, "GB", "US") == [("phone", "(202) 555-0143"), ("phone", "020 7946 0018"), paris]


@pytest.mark.parametrize("text", [
    "0.223540908 0.218282233397 0.254457430072", "32768-65535", "[*0209.0020.0004.2002]", "2017-03-03 33:44:55",
    "93 62 44 39 46 31 57 72 30 65 29 66 53 2 2 71 90 73", "202 555 0143 202 555 0144 7 7 7 7 7",
    "[*026B.0020.0002.2019]", "0069 0307 0301", "3.636 947 5520 e-4", "-658.227 5971", "DFARS 252.227-7014", "0.946777",
])
def test_rows_of_numbers_are_no_phone_numbers(text: str) -> None:
    assert found(text, "US", "GB", "DE") == []


def test_an_unknown_region_is_refused() -> None:
    with pytest.raises(ConfigError, match="got UK, usa"):
        find_pii("text", ["usa", "US", "UK"])


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pii._require_packages.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"no phonenumbers, stdnum; run: pip install 'instructgpt_fast\[hygiene\]'"):
        find_pii("text")


def test_of_overlapping_findings_the_kind_that_stands_first_wins() -> None:
    """A span stays exactly when no stronger one that stays has a character of it."""

    def strength(span: tuple[str, int, int]) -> tuple[int, int, int]:
        return pii.KINDS.index(span[0]), span[1] - span[2], span[1]

    draw = random.Random(1)
    for _ in range(500):
        starts = [draw.randint(0, 30) for _ in range(draw.randint(1, 12))]
        spans = [(draw.choice(pii.KINDS[:3]), start, start + draw.randint(1, 9)) for start in starts]
        kept = pii._resolved(spans)
        assert kept == sorted(set(kept), key=lambda span: span[1])
        for span in set(spans):
            hit = [k for k in kept if k[1] < span[2] and span[1] < k[2] and strength(k) < strength(span)]
            assert (span in kept) == (not hit)
    assert found("1234567890@example.com") == [("email", "1234567890@example.com")]


def test_places_are_those_of_the_text_as_given() -> None:
    hidden = "\u200b\ufeffIP\u200b: 203.0\u200b.113.7, ４１１１\u00a01111\u20091111\u30001111\u200d!"
    assert found(hidden) == [("ip", "203.0\u200b.113.7"), ("card", "４１１１\u00a01111\u20091111\u30001111")]
    assert mask_pii(hidden, find_pii(hidden)) == "\u200b\ufeffIP\u200b: [IP], [CARD]\u200d!"


def test_folding_keeps_one_character_for_each_visible_one() -> None:
    draw = random.Random(2)
    for _ in range(200):
        text = "".join(draw.choice("aé1３\u200b\u00ad\u3000‑𝟗٣。\U0001f4de") for _ in range(draw.randint(1, 30)))
        folded = fold(text)
        visible = [place for place, c in enumerate(text) if c not in "\u200b\u00ad"]
        assert len(folded.text) == len(visible)
        for start in range(len(visible)):
            assert folded.place(start, start + 1) == (visible[start], visible[start] + 1)
        assert not any(c.isdigit() and not c.isascii() for c in folded.text)


def test_entropy_is_in_bits() -> None:
    assert entropy_bits("") == 0 and entropy_bits("aaaa") == 0
    assert entropy_bits("abcd") == pytest.approx(8) and entropy_bits("aabb") == pytest.approx(4)
    assert entropy_bits("0123456789abcdef") == pytest.approx(64)


@pytest.mark.parametrize("findings", [
    [Finding("ip", 4, 6), Finding("ip", 0, 2)], [Finding("ip", 0, 4), Finding("ip", 3, 5)], [Finding("ip", 8, 12)],
])
def test_masking_refuses_findings_of_another_text(findings: list[Finding]) -> None:
    with pytest.raises(ValueError, match="inside the text of 10 characters"):
        mask_pii("0123456789", findings)


@pytest.mark.parametrize("piece", [
    "a", "a@a.", "1", "1 ", "1.", ":", "AB12 ", "eyJaaaaaaaa.", "-----BEGIN PRIVATE KEY-----",
    "password=", "password: \"", "://a:", "a [at] a.", "-u a:b", "a\u200b",
])
def test_a_million_hostile_characters_take_no_longer_than_others(piece: str) -> None:
    """A pattern that backtracks would need hours here, far beyond any test's patience."""
    find_pii((piece * (1_000_000 // len(piece) + 1))[:1_000_000])


def test_hostile_numbers_for_regions() -> None:
    """The matcher of phonenumbers takes about 0.1 ms a candidate: the time of a table of digits, still linear."""
    for piece in ("1 ", "(1(1", "00 4", "202-555-"):
        find_pii((piece * 5000)[:20_000], ["US"])
