"""Finds private information in a text, as places, and masks it: e-mail, phone, card, IP, IBAN, secret keys.

Not covered: names, postal addresses, dates of birth, national and tax numbers, accounts without an IBAN, handles.
docs/pii.md says what was measured and what each finder takes for its kind.
"""

from __future__ import annotations

import importlib.util
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from instructgpt_fast.data.hygiene.pii_fold import fold
from instructgpt_fast.data.hygiene.pii_keys import find_keys
from instructgpt_fast.data.hygiene.pii_network import find_emails, find_ips
from instructgpt_fast.data.hygiene.pii_payment import find_cards, find_ibans
from instructgpt_fast.data.hygiene.pii_phone import check_regions, find_phones
from instructgpt_fast.errors import ConfigError

__all__ = ["KINDS", "Finding", "find_pii", "mask_pii"]

# Where two findings overlap the kind that stands first wins: a key may hold anything, an address may hold a number,
# a checksum says more than none, and a phone number is the loosest form of all.
KINDS = ("key", "email", "iban", "card", "ip", "phone")


# A text with fewer digits than the shortest of a kind has costs no search for it.
_DIGITS_OF_AN_ADDRESS = 4  # 1.1.1.1
_DIGITS_OF_A_NUMBER = 7  # a subscriber's number with its area


class Finding(NamedTuple):
    """One piece of private information: text[start:end], in code points of the text that was given."""

    kind: str
    start: int
    end: int


def find_pii(text: str, regions: Sequence[str] = ()) -> list[Finding]:
    """Return the findings in `text` in order of place, none overlapping another.

    regions: ISO 3166 codes ("US", "DE") whose national phone numbers count too; international ones (+, 00) always do.
    Time is linear in len(text). Raises ConfigError for an unknown region and where the extra [hygiene] is missing.
    """
    _require_packages()
    where = tuple(regions)
    check_regions(where)
    folded = fold(text)
    plain = folded.text
    spans = [("key", *span) for span in find_keys(plain)]
    spans += [("email", *span) for span in find_emails(plain)]
    digits = sum(map(plain.count, "0123456789"))
    if digits >= _DIGITS_OF_AN_ADDRESS:
        spans += [("ip", *span) for span in find_ips(plain)]
    if digits >= _DIGITS_OF_A_NUMBER:
        spans += [("iban", *span) for span in find_ibans(plain)]
        spans += [("card", *span) for span in find_cards(plain)]
        spans += [("phone", *span) for span in find_phones(plain, where)]
    if not spans:
        return []
    return [Finding(kind, *folded.place(start, end)) for kind, start, end in _resolved(spans)]


def mask_pii(text: str, findings: Iterable[Finding]) -> str:
    """Return `text` with each finding replaced by its kind in brackets, as [EMAIL].

    findings: in order of place and not overlapping, as `find_pii` gives them. Raises ValueError for others.
    """
    pieces, done = [], 0
    for kind, start, end in findings:
        if not done <= start < end <= len(text):
            raise ValueError(
                f"mask_pii: findings must be in order, apart and inside the text of {len(text)} characters, got "
                f"{kind} at {start}..{end} after {done}; give what find_pii found in this text"
            )
        pieces += [text[done:start], f"[{kind.upper()}]"]
        done = end
    return "".join([*pieces, text[done:]])


@lru_cache(maxsize=1)
def _require_packages() -> None:
    missing = [name for name in ("phonenumbers", "stdnum") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"find_pii: needs phonenumbers and python-stdnum, got no {', '.join(missing)}; "
            "run: pip install 'instructgpt_fast[hygiene]'"
        )


def _resolved(spans: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Return the spans that stay, in order of place; taken by KINDS, then the longer, then the earlier."""
    kept: list[tuple[int, int, str]] = []
    for kind, start, end in sorted(spans, key=lambda span: (KINDS.index(span[0]), span[1] - span[2], span[1])):
        at = bisect_left(kept, (start, end, kind))
        if (at == 0 or kept[at - 1][1] <= start) and (at == len(kept) or end <= kept[at][0]):
            kept.insert(at, (start, end, kind))
    return [(kind, start, end) for start, end, kind in kept]
