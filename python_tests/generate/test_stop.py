"""Stop strings against the plain rule: decode everything, cut before the stop string that is complete first."""

from __future__ import annotations

import random

import pytest

from instructgpt_fast.generate.stop import StopText
from instructgpt_fast.tokenizer import Tokenizer

LETTERS = ["a", "b", "é", "狐"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Merges join letters, so that tokens hold several; bytes stand alone too, so that characters are cut."""
    draw = random.Random(0)
    texts = ["".join(draw.choices(LETTERS, k=40)) for _ in range(30)]
    return Tokenizer.train(texts, 300, min_frequency=1)


def in_bytes(tokenizer: Tokenizer, text: str) -> list[int]:
    """A token for each byte: characters of several bytes are cut."""
    ids = {tokenizer.bytes_of(t): t for t in range(tokenizer.vocab_size)}
    return [ids[bytes([number])] for number in text.encode()]


def cut(text: str, stop: list[str]) -> tuple[str, bool]:
    """The rule itself: over ever longer beginnings, until one ends with a stop string; the longest such one counts."""
    for end in range(1, len(text) + 1):
        found = [s for s in stop if text[:end].endswith(s)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def shown(tokenizer: Tokenizer, tokens: list[int], stop: list[str]) -> tuple[list[str], bool]:
    """The pieces as they come; the last one is what `finish` gives."""
    stream, pieces, stopped = StopText(tokenizer, stop), [], False
    for token in tokens:
        piece, stopped = stream.push(token)
        pieces.append(piece)
        if stopped:
            break
    return [*pieces, stream.finish()], stopped


@pytest.mark.parametrize("seed", range(8))
def test_equals_cutting_the_whole_text(tokenizer: Tokenizer, seed: int) -> None:
    """Random tokens, also broken characters; stop strings that overlap, contain and begin each other."""
    draw = random.Random(seed)
    both = set()
    ordinary = [t for t in range(tokenizer.vocab_size) if t not in tokenizer.special_ids]
    for _ in range(150):
        tokens: list[int] = []
        for _ in range(draw.randrange(12)):
            word = "".join(draw.choices(LETTERS, k=draw.randrange(1, 5)))
            tokens += draw.choice([tokenizer.encode(word), in_bytes(tokenizer, word), [draw.choice(ordinary)]])
        stop = ["".join(draw.choices([*LETTERS, "\ufffd"], k=draw.randrange(1, 6))) for _ in range(draw.randrange(4))]
        expected, stopped = cut(tokenizer.decode(tokens), stop)
        pieces, found = shown(tokenizer, tokens, stop)
        assert "".join(pieces) == expected, (tokens, stop)
        # U+FFFD of a character that stays incomplete is known only at the end, when there is nothing left to stop.
        assert found == (stopped and cut("".join(text_until(tokenizer, tokens)), stop)[1])
        both.add(found)
    assert both == {True, False}


def text_until(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    stream = tokenizer.text_stream()
    return [stream.push(token) for token in tokens]


def test_text_waits_only_while_it_could_begin_a_stop_string(tokenizer: Tokenizer) -> None:
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    stream = StopText(tokenizer, ["bab"])
    assert [stream.push(t) for t in (a, b, a, a, b, b, a)] == [
        ("a", False), ("", False), ("", False), ("baa", False), ("", False), ("b", False), ("", False),
    ]
    assert stream.push(b) == ("", True)
    assert stream.push(a) == ("", True)
    assert stream.finish() == ""


def test_what_waited_is_text_after_all(tokenizer: Tokenizer) -> None:
    pieces, stopped = shown(tokenizer, tokenizer.encode("aéb"), ["baa"])
    assert ("".join(pieces), pieces[-1], stopped) == ("aéb", "b", False)


def test_the_string_complete_first_wins_and_of_two_the_longer(tokenizer: Tokenizer) -> None:
    for tokens in (tokenizer.encode("aabba"), [t for c in "aabba" for t in tokenizer.encode(c)]):
        assert "".join(shown(tokenizer, tokens, ["abba", "bb"])[0]) == "aa", "abba begins first, bb is complete first"
        assert "".join(shown(tokenizer, tokens, ["bb", "abb"])[0]) == "a"


def test_special_tokens_and_stop_ids_give_no_text(tokenizer: Tokenizer) -> None:
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    stream = StopText(tokenizer, ["ab"], stop_ids=[b])
    assert stream.push(a) == ("", False)
    assert stream.push(tokenizer.eos_id) == ("", False)
    assert stream.push(b) == ("", False)
    assert stream.finish() == "a"


def test_forks_go_on_apart(tokenizer: Tokenizer) -> None:
    """In the middle of a character and of a stop string."""
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    stream = StopText(tokenizer, ["aé"])
    first, second = in_bytes(tokenizer, "é")
    assert [stream.push(t) for t in (a, first)] == [("", False)] * 2
    other = stream.fork()
    assert stream.push(second) == ("", True)
    assert other.push(b) == ("a\ufffdb", False)
    assert stream.push(a) == ("", True)
    assert other.push(a) == ("", False)
