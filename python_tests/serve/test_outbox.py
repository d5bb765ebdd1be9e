"""When tokens are handed to the event loop: ends at once, the rest together, none late, lost or out of order."""

from __future__ import annotations

from instructgpt_fast.generate.requests import Drawn
from instructgpt_fast.serve.answer import Answer, Token
from instructgpt_fast.serve.outbox import GATHER_SECONDS, Outbox

STEP = GATHER_SECONDS / 5
ROUNDING = 1e-9


def token(number: int, time: float) -> Token:
    return Token(0, Drawn(0, 0, number, 0.0), time)


def told(due: list[tuple[Answer, list[Token]]]) -> list[tuple[Answer, list[int]]]:
    return [(answer, [item.drawn.token for item in tokens]) for answer, tokens in due]


def test_first_and_last_tokens_take_what_is_before_them_and_leave_other_answers() -> None:
    box, one, other = Outbox(100), Answer("m", 1, 100), Answer("m", 1, 100)
    box.add(one, token(0, 0.0), urgent=True)
    box.add(other, token(10, 0.0), urgent=False)
    assert told(box.due(STEP)) == [(one, [0])]
    box.add(one, token(1, STEP), urgent=False)
    assert told(box.due(2 * STEP)) == []
    box.add(one, token(2, 2 * STEP), urgent=True)
    assert told(box.due(3 * STEP)) == [(one, [1, 2])]
    assert told(box.due(1.0)) == [(other, [10])]
    assert told(box.due(2.0)) == []


def test_no_token_waits_longer_than_it_may() -> None:
    """Also one that came while others were handed over, and whatever a step takes."""
    for step in (STEP / 3, STEP, GATHER_SECONDS / 1.5, 3 * GATHER_SECONDS):
        box, answer, seen, wake_ups = Outbox(1000), Answer("m", 1, 1000), [], 0
        for number in range(40):
            now = number * step
            box.add(answer, token(number, now), urgent=number == 7)
            due = box.due(now + step)
            wake_ups += bool(due)
            for _, tokens in due:
                seen += [item.drawn.token for item in tokens]
                assert all(now - item.time < GATHER_SECONDS + ROUNDING for item in tokens)
        assert seen == list(range(len(seen))) and (39 - seen[-1]) * step < GATHER_SECONDS + ROUNDING
        expected = max(1, int(GATHER_SECONDS / step))
        assert wake_ups <= 40 // expected + 2, "tokens of short steps come together"


def test_many_tokens_of_one_answer_do_not_wait() -> None:
    box, answer = Outbox(3), Answer("m", 1, 100)
    for number in range(2):
        box.add(answer, token(number, 0.0), urgent=False)
    assert box.due(0.0) == []
    box.add(answer, token(2, 0.0), urgent=False)
    assert told(box.due(0.0)) == [(answer, [0, 1, 2])]


def test_dropped_answers_are_forgotten() -> None:
    box, one, other = Outbox(100), Answer("m", 1, 100), Answer("m", 1, 100)
    for answer in (one, other):
        box.add(answer, token(0, 0.0), urgent=answer is one)
    box.drop(one)
    box.drop(one)
    assert told(box.due(1.0)) == [(other, [0])]
