"""What a label may hold: every rule about a payload, for drafts and for finished labels.

A draft may be incomplete but not wrong: whatever it says must be in the form. A finished label must be complete too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from instructgpt_fast.config import nearest
from instructgpt_fast.label.errors import refused
from instructgpt_fast.label.form import (
    FIELD_NAMES,
    NOTE_CHARACTERS,
    OVERALL_HIGH,
    OVERALL_LOW,
    RESPONSE_CHARACTERS,
    Ratings,
)

Kind = Literal["ranking", "demonstration"]
Status = Literal["draft", "done", "skipped"]
KINDS: tuple[Kind, ...] = ("ranking", "demonstration")
STATUSES: tuple[Status, ...] = ("draft", "done", "skipped")


def checked_payload(
    kind: Kind, status: Status, payload: Any, answers: Sequence[str], ratings: Ratings = "all"
) -> dict[str, Any]:
    """The payload in its one form: every part is there, answers in their order. Raises ApiError 422 for a broken rule.

    answers: ids of the prompt's answers. ratings: what a finished ranking must rate of each.
    """
    if kind == "demonstration":
        return _demonstration(payload, status)
    _object(payload, "payload", ("ratings", "ranking", "note"))
    given = _object(payload.get("ratings", {}), "ratings", None)
    for identity in given:
        _known_answer(identity, "ratings", answers)
    found = {identity: _rating(given.get(identity, {}), identity) for identity in answers}
    ranking = _ranking(payload.get("ranking", []), answers)
    if status == "done":
        _complete_ranking(ranking, answers)
        _complete_ratings(found, ratings)
    return {"ratings": found, "ranking": ranking, "note": _text(payload.get("note", ""), "note", NOTE_CHARACTERS)}


def ranks_of(ranking: Sequence[Sequence[str]]) -> dict[str, int]:
    """Answer id -> rank from 1 = best; the answers of a group share a rank, and the next group's is one more."""
    return {identity: place for place, group in enumerate(ranking, start=1) for identity in group}


def _demonstration(payload: Any, status: Status) -> dict[str, Any]:
    _object(payload, "payload", ("response",))
    response = _text(payload.get("response", ""), "response", RESPONSE_CHARACTERS)
    if status == "done" and not response.strip():
        raise refused("response must have at least one character that is not white space, got none; write an answer.")
    return {"response": response}


def _rating(rating: Any, identity: str) -> dict[str, Any]:
    where = f"ratings[{identity!r}]"
    _object(rating, where, ("overall", "fields"))
    overall = rating.get("overall")
    if overall is not None and not (type(overall) is int and OVERALL_LOW <= overall <= OVERALL_HIGH):
        raise refused(
            f"{where}.overall must be a whole number in {OVERALL_LOW}..{OVERALL_HIGH} or null, got {shown(overall)}."
        )
    fields = _object(rating.get("fields", {}), f"{where}.fields", FIELD_NAMES)
    for name, value in fields.items():
        if value is not None and not isinstance(value, bool):
            raise refused(f"{where}.fields.{name} must be true, false or null, got {shown(value)}.")
    return {"overall": overall, "fields": {name: fields.get(name) for name in FIELD_NAMES}}


def _ranking(ranking: Any, answers: Sequence[str]) -> list[list[str]]:
    if not isinstance(ranking, list) or not all(isinstance(group, list) for group in ranking):
        raise refused(f"ranking must be a list of lists of answers, the best first, got {shown(ranking)}.")
    seen: set[str] = set()
    for place, group in enumerate(ranking):
        if not group:
            raise refused(f"ranking[{place}] must hold at least one answer, got none; leave the group out.")
        for identity in group:
            _known_answer(identity, f"ranking[{place}]", answers)
            if identity in seen:
                raise refused(f"ranking must name each answer once, got {identity!r} twice.")
            seen.add(identity)
    # Within a group there is no order: one form for equal labels.
    return [sorted(group, key=answers.index) for group in ranking]


def _complete_ranking(ranking: Sequence[Sequence[str]], answers: Sequence[str]) -> None:
    ranked = ranks_of(ranking)
    missing = [identity for identity in answers if identity not in ranked]
    if missing:
        raise refused(
            f"a finished ranking must place all {len(answers)} answers, got {len(ranked)}; "
            f"still to place: {', '.join(missing)}."
        )


def _complete_ratings(found: Mapping[str, Mapping[str, Any]], ratings: Ratings) -> None:
    for identity, rating in found.items():
        if ratings != "none" and rating["overall"] is None:
            raise refused(
                f"a finished ranking needs the overall quality ({OVERALL_LOW}..{OVERALL_HIGH}) of every answer, got "
                f"none for {identity!r}."
            )
        missing = [name for name, value in rating["fields"].items() if value is None]
        if ratings == "all" and missing:
            raise refused(
                f"a finished ranking needs all {len(FIELD_NAMES)} yes/no fields of every answer, got "
                f"{len(FIELD_NAMES) - len(missing)} for {identity!r}; still to answer: {', '.join(missing)}."
            )


def _object(value: Any, name: str, known: Sequence[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refused(f"{name} must be an object, got {shown(value)}.")
    for key in value if known is not None else ():
        if key not in (known or ()):
            raise refused(
                f"{name} has no field {key[:60]!r}{nearest(key[:60], known or ()) or '.'} "
                f"Its fields are {', '.join(known or ())}."
            )
    return value


def _known_answer(identity: Any, where: str, answers: Sequence[str]) -> None:
    if not isinstance(identity, str) or identity not in answers:
        raise refused(
            f"{where} names an answer that is not this prompt's, got {shown(identity)}; its answers are "
            f"{', '.join(answers)} (as text)."
        )


def _text(value: Any, name: str, limit: int) -> str:
    if not isinstance(value, str):
        raise refused(f"{name} must be text, got {shown(value)}.")
    if len(value) > limit:
        raise refused(f"{name} must have at most {limit:,} characters, got {len(value):,}; shorten it.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise refused(f"{name} must be Unicode text, got half a character (a lone surrogate).") from None
    return value


def shown(value: Any) -> str:
    """A value from a request in a few words for a message: never more than 60 characters of it."""
    kinds = {type(None): "null", dict: "an object", list: "a list"}
    if type(value) in kinds:
        return kinds[type(value)]
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else f"{text[:60]}..."
