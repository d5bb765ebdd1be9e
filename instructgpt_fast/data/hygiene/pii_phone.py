"""Telephone numbers in a folded text (pii_fold), judged by the numbering plans that phonenumbers carries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from instructgpt_fast.errors import ConfigError

__all__ = ["check_regions", "find_phones"]

Span = tuple[int, int]

# What could be a number: digits in groups with up to 4 separators between, a plus or a bracket before.
_RUN = re.compile(r"(?:\+ {0,2}\(? ?|\( ?)?[0-9]+(?:[ ().\-/]{1,4}[0-9]+)*")
_GROUP = re.compile(r"[0-9]+")
_WORD = re.compile(
    r"(?:tel|phone|call|mobile|cell|fax|sms|text|ring|whatsapp|signal|telegram|hotline|telefon|telefono|teléfono"
    r"|téléphone|portable|móvil|movil|celular|telemóvel|handy|mobil|anruf|appele|llám|puhelin|тел|звон|電話|电话|手机"
    r"|携帯|전화|☎|📞)", re.IGNORECASE,
)
_WORD_REACH = 24  # characters before a number in which such a word makes plain digits a phone number
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

    Digits without a separator count as national only after a word such as phone or tel: any long number has that form.
    """
    for found in _RUN.finditer(text):
        start, end = found.span()
        if end - start < 7 or (start and text[start - 1].isalnum()):
            continue
        if sum(map(len, _GROUP.findall(found[0]))) < 7:
            continue
        yield from _in_run(text, start, end, regions)


def _in_run(text: str, start: int, end: int, regions: tuple[str, ...]) -> Iterator[Span]:
    """Yield the numbers that begin in text[start:end], a run: the international ones, else each region's."""
    if text[start] == "+":
        yield from _matches(text, start, end, None)
    elif text.startswith("00", start) and text[start + 2] in "123456789":
        # The matcher reads 00 as the way out of a country only where it knows the country: it is shown a plus.
        shown = text[max(0, start - _BEFORE) : start] + " +" + text[start + 2 : end + _AFTER]
        for first, last in _matches(shown, min(_BEFORE, start) + 1, min(_BEFORE, start) + end - start, None):
            yield first - min(_BEFORE, start) + start, last - min(_BEFORE, start) + start
    for region in regions:
        for first, last in _matches(text, start, end, region):
            if _GROUP.fullmatch(text, first, last) and not _WORD.search(text, max(0, first - _WORD_REACH), first):
                continue
            yield first, last


def _matches(text: str, start: int, end: int, region: str | None) -> Iterator[Span]:
    """Yield what phonenumbers' matcher finds beginning in text[start:end]; `region` is whose national form counts."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    origin = max(0, start - _BEFORE)
    seen = text[origin : end + _AFTER]
    for match in PhoneNumberMatcher(seen, region, leniency=Leniency.VALID, max_tries=len(seen)):
        if start <= origin + match.start < end:
            yield origin + match.start, origin + match.end
