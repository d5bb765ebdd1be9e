"""Few-shot prompts in both formats, character by character and turn by turn."""

from __future__ import annotations

from typing import Any

import pytest

from instructgpt_fast.errors import DataError
from instructgpt_fast.tokenizer import Message
from instructgpt_fast.tokenizer.few_shot import FewShot, as_few_shot

PAIRS = [("sea", "mer"), ("sky", "ciel")]
USER, ASSISTANT, SYSTEM = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "system"))
SHOWN = (USER("sea"), ASSISTANT("mer"), USER("sky"), ASSISTANT("ciel"))


def test_plain_text() -> None:
    assert as_few_shot(PAIRS).prompt("sun", "raw") == "sea\nmer\n\nsky\nciel\n\nsun\n"
    assert as_few_shot(PAIRS).prompt([{"role": "user", "content": "sun"}], "raw") == "sea\nmer\n\nsky\nciel\n\nsun\n"
    french = FewShot(PAIRS, instruction="Into French:", between=" =>", separator=";")
    assert french.prompt("sun", "raw") == "Into French:;sea =>mer;sky =>ciel;sun =>"
    assert FewShot([], instruction="Into French:").prompt("sun", "raw") == "Into French:\n\nsun\n"


def test_dialogue() -> None:
    few = as_few_shot(PAIRS)
    assert few.prompt("sun", "dialogue") == (*SHOWN, USER("sun"))
    talk = [SYSTEM("Be brief."), USER("sun"), ASSISTANT("soleil"), USER("moon")]
    assert few.prompt(talk, "dialogue") == (talk[0], *SHOWN, *talk[1:])
    told = FewShot(PAIRS, instruction="Into French:")
    assert told.prompt("sun", "dialogue") == (SYSTEM("Into French:"), *SHOWN, USER("sun"))
    with pytest.raises(DataError, match="one system message, got one in the prompt beside the instruction 'Into Fr"):
        told.prompt(talk, "dialogue")


def test_where_an_answer_ends() -> None:
    assert as_few_shot(PAIRS).stop("raw") == ("\n\n",)
    assert as_few_shot(PAIRS).stop("dialogue") == ()
    assert FewShot(PAIRS, separator="").stop("raw") == ()
    assert FewShot([], instruction="Into French:").stop("raw") == ()


@pytest.mark.parametrize(("examples", "message"), [
    ([("sea", "mer"), ("sky",)], r"pair of texts \(x, y\), got \('sky',\) as example 1"),
    ([("sea", 3)], r"got \('sea', 3\) as example 0"),
    (["ab"], "got 'ab' as example 0"),
    ("ab", r"list of pairs \(x, y\) or a FewShot, got str"),
    ({"sea": "mer"}, "got dict"),
])
def test_refused(examples: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_few_shot(examples)


def test_plain_text_takes_one_question() -> None:
    with pytest.raises(DataError, match="takes one user message, got 3 messages"):
        as_few_shot(PAIRS).prompt([USER("a"), ASSISTANT("b"), USER("c")], "raw")
