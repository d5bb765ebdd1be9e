"""Telephone numbers in a folded text (pii_fold), judged by the numbering plans that phonenumbers carries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from instructgpt_fast.data.hygiene.pii_fold import JOINED
from instructgpt_fast.errors import ConfigError

__all__ = ["check_regions", "find_phones"]

Span = tuple[int, int]

# What could be a number: digits in groups with up to 4 separators between, a plus or a bracket before.
_RUN = re.compile(r"(?:\+ {0,2}\(? ?|\( ?)?[0-9]+(?:[ ().\-/]{1,4}[0-9]+)*")
_COUNTRY = re.compile(r"00(?: ?([17]|[2-9][0-9]{1,2})[ ().\-/]|[1-9][0-9]{6})")
_GROUP = re.compile(r"[0-9]+")
_WORD = re.compile(
    r"\b(?:tel|phone|telephone|call|mobile|cell|fax|sms|text|ring|dial|whatsapp|hotline|portable|móvil|movil|celular|cel"
    r"|handy|mobil|anruf|ruf|appele|tél|llám|llam|puhelin|soita|zadzwoń|bel|ligue|cellulare|gsm|тел|звон|моб)"
    r"|telefon|電話|电话|手机|携帯|전화|هاتف|☎|📞", re.IGNORECASE,
)
_WORD_REACH = 24  # characters before a number in which such a word speaks for it
_DIGITS_BESIDE = 4  # a year or an hour beside a number; more are a table
_BEHIND = re.compile(f"[{JOINED}]")
_POSSIBLE_DIGITS = 9  # a number that only could be one, by its length, has at least so many digits
_BEFORE, _AFTER = 4, 24  # characters around a run that the matcher sees: signs before it, an extension after


@lru_cache(maxsize=64)
def check_regions(regions: tuple[str, ...]) -> None:
    """Raise ConfigError for a region that phonenumbers does not know."""
    if regions:
        from phonenumbers import SUPPORTED_REGIONS

        unknown = sorted(set(regions) - SUPPORTED_REGIONS)
        if unknown:
            raise ConfigError(
                f"phone regions: codes of ISO 3166 such as US or DE, got {', '.join(unknown)}; give two capital letters"
            )


def find_phones(text: str, regions: tuple[str, ...] = ()) -> Iterator[Span]:
    """Yield the places of phone numbers: international ones (+ or 00 first), national ones of `regions` alone.

    A number must be one by its country's plan; behind a plus, or a word such as phone or tel, a possible length is
    enough, because plans grow. A national number without such a word must stand in the groups of its plan and not in a
    row of numbers; digits without a separator are none, because any long number has that form.
    """
    for found in _RUN.finditer(text):
        start, end = found.span()
        if end - start < 7 or (start and _BEHIND.match(text, start - 1)):
            continue
        if sum(map(len, _GROUP.findall(found[0]))) >= 7:
            yield from _in_run(text, start, end, regions)


def _in_run(text: str, start: int, end: int, regions: tuple[str, ...]) -> Iterator[Span]:
    """Yield the numbers that begin in text[start:end], a run: the international ones, else each region's."""
    if text[start] == "+":
        yield from _matches(text, start, end, None, certain=False)
        return
    if text.startswith("00", start):
        yield from _behind_zeros(text, start, end)
        return
    word = _WORD.search(text, max(0, start - _WORD_REACH), start) is not None
    if not word and _GROUP.fullmatch(text, start, end):
        return
    for region in regions:
        for first, last in _matches(text, start, end, region, certain=not word):
            if word or not (_is_plain_number(text, first, last) or _in_a_row(text, start, first, last, end)):
                yield first, last


def _is_plain_number(text: str, first: int, last: int) -> bool:
    """Whether text[first:last] is digits alone, or a decimal fraction: a phone number's points are two at least."""
    between = set(_GROUP.sub("", text[first:last]))
    points = text.count(".", first, last)
    return not between or (points > 0 and (points == 1 or between != {"."})) or (first > 0 and text[first - 1] == ".")


def _in_a_row(text: str, start: int, first: int, last: int, end: int) -> bool:
    """Whether text[first:last] is one of a row of numbers: the run that it is in has more than a few digits besides."""
    return sum(map(str.isdigit, text[start:first] + text[last:end])) > _DIGITS_BESIDE


def _behind_zeros(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield the number behind 00 and its country: the matcher is shown a plus, it knows 00 in some regions only."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, Leniency

    country = _COUNTRY.match(text, start)
    if country is None or (country[1] and int(country[1]) not in COUNTRY_CODE_TO_REGION_CODE):
        return
    for first, last in _matched(f" +{text[start + 2 : end + _AFTER]}", 1, end - start, None, Leniency.VALID):
        if first == 1 and text[start - 1 : start] != ".":
            yield start, start + last


def _matches(text: str, start: int, end: int, region: str | None, *, certain: bool) -> list[Span]:
    """Return what phonenumbers' matcher finds beginning in text[start:end]; `region` is whose national form counts.

    certain: only numbers that the plans hold, in the groups that they give; otherwise any that the plans hold, and
    where there is none those that have a possible length.
    """
    from phonenumbers import Leniency

    found = _matched(text, start, end, region, Leniency.STRICT_GROUPING if certain else Leniency.VALID)
    if found or certain:
        return found
    return [
        (first, last) for first, last in _matched(text, start, end, region, Leniency.POSSIBLE)
        if sum(map(str.isdigit, text[first:last])) >= _POSSIBLE_DIGITS and not _BEHIND.match(text, last)
    ]


def _matched(text: str, start: int, end: int, region: str | None, leniency: int) -> list[Span]:
    from phonenumbers import PhoneNumberMatcher

    origin = max(0, start - _BEFORE)
    seen = text[origin : end + _AFTER]
    spans = []
    for match in PhoneNumberMatcher(seen, region, leniency=leniency, max_tries=len(seen)):
        first, last = origin + match.start, origin + match.end
        if start <= first < end:
            lone = text[first] == "(" and ")" not in text[first:last]
            spans.append((first + lone, last))
    return spans
