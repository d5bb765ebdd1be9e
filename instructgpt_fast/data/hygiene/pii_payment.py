"""Payment cards (Luhn's checksum) and IBANs (ISO 13616, checksum modulo 97) in a folded text (pii_fold)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from instructgpt_fast.data.hygiene.pii_fold import JOINED

__all__ = ["find_cards", "find_ibans"]

Span = tuple[int, int]

# Groups as cards are printed (4-4-4-4 with up to 3 more, 4-6-5, 4-6-4) with one kind of separator, or none at all.
_CARD = re.compile(
    rf"(?<![{JOINED}.,+/-])(?:"
    r"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,3})?|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5}|[0-9]{13,19}"
    rf")(?![{JOINED}/]|[.,][0-9]|-[{JOINED}])"
)
_GROUPS_BEFORE = re.compile(r"(?:(?<![0-9A-Za-z])(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]{4,5} ){0,2}\Z")
_GROUPS_BEHIND = re.compile(r"(?: (?=[A-Fa-f]*[0-9])[0-9A-Fa-f]{4,5}(?![0-9A-Za-z])){0,2}")
# First digits and lengths of the networks as they publish them; Maestro's wide ranges only where it alone issues.
_NETWORK = re.compile(
    r"(?:4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    r"|3[47][0-9]{13}|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12,15}|62[0-9]{14,17}|35(?:2[89]|[3-8][0-9])[0-9]{12,15}"
    r"|(?:30[0-5]|309|36[0-9]|3[89][0-9])[0-9]{11,16}|220[0-4][0-9]{12,15}|(?:60|81|82|508)[0-9]{13,14}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])[0-9]{8,15})\Z"
)
_IBAN = re.compile(rf"(?<![{JOINED}])[A-Za-z]{{2}}[0-9]{{2}}(?:[ .-]?[A-Za-z0-9]){{11,30}}")
_BETWEEN = " .-"
_JOINED = re.compile(f"[{JOINED}]")


def find_cards(text: str) -> Iterator[Span]:
    """Yield the places of card numbers: a known network's first digits and length, printed groups, Luhn's checksum.

    A number inside a longer one, with letters or decimals set to it, in a row of such groups (a table of hexadecimal
    numbers) or grouped otherwise is not taken.
    """
    from stdnum import luhn

    for found in _CARD.finditer(text):
        if not found[0].isdigit() and _in_a_row(text, *found.span()):
            continue
        digits = found[0].replace(" ", "").replace("-", "")
        if _NETWORK.match(digits) and luhn.is_valid(digits):
            yield found.span()


def _in_a_row(text: str, start: int, end: int) -> bool:
    """Whether two or more groups of four stand beside text[start:end]: it is cut out of a table."""
    before, behind = _GROUPS_BEFORE.search(text, max(0, start - 12), start), _GROUPS_BEHIND.match(text, end)
    return sum(found[0].count(" ") for found in (before, behind) if found) >= 2


def find_ibans(text: str) -> Iterator[Span]:
    """Yield the places of IBANs: a country's length and form (the registry that python-stdnum carries), its checksum.

    Written together or in groups with spaces, points or hyphens, in capitals or not.
    """
    from stdnum import iban

    at = 0
    while found := _IBAN.search(text, at):
        start, at = found.start(), found.start() + 4
        length = _iban_length(text[start : start + 2].upper())
        end = _end(text, start, found.end(), length) if length else None
        if end is not None and iban.is_valid(text[start:end], check_country=False):
            yield start, end
            at = end


def _end(text: str, start: int, limit: int, length: int) -> int | None:
    """Return where `length` letters and digits from `start` on end, or None where they do not, or the word goes on."""
    count = 0
    for place in range(start, limit):
        count += text[place] not in _BETWEEN
        if count == length:
            return None if _JOINED.match(text, place + 1) else place + 1
    return None


@lru_cache(maxsize=1024)
def _iban_length(country: str) -> int | None:
    """Return the characters of a country's IBAN, by the registry of python-stdnum, or None where it has none."""
    from stdnum import numdb

    form = numdb.get("iban").info(country)[0][1].get("bban")
    return None if form is None else 4 + sum(map(int, re.findall(r"[0-9]+", form)))
