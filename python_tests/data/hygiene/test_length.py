"""Length and quality: each rule just below, at and above its bound, against shares counted by hand."""

from __future__ import annotations

import pytest

from instructgpt_fast.data.hygiene.length import GOPHER, GOPHER_WORDS, QualityRules, length_reason, quality_reason
from instructgpt_fast.errors import ConfigError

NOTHING = {
    "min_letters": None, "max_broken": None, "max_repeated_lines": None, "max_repeated_ngrams": (),
    "min_words_judged": 0,
}
PROSE = (
    "The old mill stood at the end of the village, where the river turned and went on to the sea. Nobody had worked "
    "there for years, but the children liked to play in its yard, and in the evening one could hear their voices from "
    "the road. When the miller's daughter came back, she opened the windows, swept the floors and began to bake bread "
    "that people still remember with a smile."
)


def only(**bounds: object) -> QualityRules:
    return QualityRules(**{**NOTHING, **bounds})  # type: ignore[arg-type]


@pytest.mark.parametrize("bounds, reason", [
    ({}, None),
    ({"min_characters": 11}, None),
    ({"min_characters": 12}, "11 characters, at least 12"),
    ({"max_characters": 11}, None),
    ({"max_characters": 10}, "11 characters, at most 10"),
    ({"min_words": 3}, None),
    ({"min_words": 4}, "3 words, at least 4"),
    ({"max_words": 3}, None),
    ({"max_words": 2}, "3 words, at most 2"),
])
def test_length(bounds: dict[str, int], reason: str | None) -> None:
    assert length_reason("one two\t thr"[:11], **bounds) == reason


# A text, a rule with a bound that it meets exactly, one that it does not, and what is said then.
CASES = [
    ("ab 12 ?! c9", {"min_letters": 3 / 8}, {"min_letters": 0.4}, "share of letters: 0.375, at least 0.4"),
    ("abc\ufffdef\x07hij", {"max_broken": 0.2}, {"max_broken": 0.19},
     "share of broken characters: 0.200, at most 0.19"),
    ("caf\u00c3\u00a9 now", {"max_broken": 2 / 9}, {"max_broken": 0.2},
     "share of broken characters: 0.222, at most 0.2"),
    ("ab abcd", {"min_mean_word": 3}, {"min_mean_word": 3.1}, "mean characters a word: 3.000, at least 3.1"),
    ("ab abcd", {"max_mean_word": 3}, {"max_mean_word": 2.9}, "mean characters a word: 3.000, at most 2.9"),
    ("#a b c d", {"max_symbols": 0.25}, {"max_symbols": 0.2}, "number signs a word: 0.250, at most 0.2"),
    ("a... b c… d", {"max_symbols": 0.5}, {"max_symbols": 0.4}, "ellipses a word: 0.500, at most 0.4"),
    ("a 1 2 b", {"min_words_with_letter": 0.5}, {"min_words_with_letter": 0.6},
     "share of words with a letter: 0.500, at least 0.6"),
    ("The cat, the dog and", {"min_stop_words": 2}, {"min_stop_words": 3},
     "different English stop words: 2, at least 3"),
    ("- a\n\n* b\nc\n d", {"max_bullet_lines": 0.5}, {"max_bullet_lines": 0.4},
     "share of lines that begin with a bullet: 0.500, at most 0.4"),
    ("a...\nb…\nc\nd", {"max_ellipsis_lines": 0.5}, {"max_ellipsis_lines": 0.4},
     "share of lines that end with an ellipsis: 0.500, at most 0.4"),
    ("x\ny\nx\n x", {"max_repeated_lines": 0.5}, {"max_repeated_lines": 0.4},
     "share of repeated lines: 0.500, at most 0.4"),
    ("x y\n\nz\n\nx y", {"max_repeated_paragraphs": 1 / 3}, {"max_repeated_paragraphs": 0.3},
     "share of repeated paragraphs: 0.333, at most 0.3"),
    ("abcd\nabcd\n", {"max_repeated_line_characters": 0.4}, {"max_repeated_line_characters": 0.3},
     "share of characters in repeated lines: 0.400, at most 0.3"),
    ("a b c a b d", {"max_top_ngrams": ((2, 4 / 6),)}, {"max_top_ngrams": ((2, 0.6),)},
     "share of characters in the most frequent 2 words: 0.667, at most 0.6"),
    ("a b c x a b c y", {"max_repeated_ngrams": ((3, 6 / 8),)}, {"max_repeated_ngrams": ((3, 0.7),)},
     "share of characters in repeated 3 words: 0.750, at most 0.7"),
    ("a a a a", {"max_repeated_ngrams": ((2, 1.0),)}, {"max_repeated_ngrams": ((2, 0.99),)},
     "share of characters in repeated 2 words: 1.000, at most 0.99"),  # words of overlapping pairs count once
]


@pytest.mark.parametrize("text, met, broken, reason", CASES, ids=[case[3].split(":")[0] for case in CASES])
def test_a_rule_at_its_bound_and_beyond(text: str, met: dict, broken: dict, reason: str) -> None:
    assert quality_reason(text, only(**met)) is None
    assert quality_reason(text, only(**broken)) == reason


def test_texts_of_every_kind_pass_the_defaults() -> None:
    for text in (
        PROSE, "What is 2 + 2?", "def f(x):\n    return x + 1\n\n\ndef g(x):\n    return f(x) - 1\n", "好的，谢谢。",
        "안녕하세요", "Łódź, Çeşme, Ærø, naïve", "Ann: hi\nBob: hi\nAnn: bye\nBob: bye", "e^(i*pi) + 1 = 0",
        "Â la carte et château", "line one\r\nline two\r\n",
    ):
        assert quality_reason(text) is None, text


@pytest.mark.parametrize("text, rule", [
    ("", "no words"), (" \n\t", "no words"), ("---- 1234 ==== 5678 ----", "share of letters"),
    ("Ã©tÃ© dÃ©jÃ  passÃ©", "share of broken"), ("\x00\x01\x02binary", "share of broken"),
    ("buy now\n" * 30, "share of repeated lines"), ("click here to win it " * 20, "share of characters in repeated 5"),
])
def test_what_is_no_text_fails_the_defaults(text: str, rule: str) -> None:
    reason = quality_reason(text)
    assert reason is not None and reason.startswith(rule)


def test_gophers_rules() -> None:
    words = {"min_words": GOPHER_WORDS[0], "max_words": GOPHER_WORDS[1]}
    assert length_reason(PROSE, **words) is None and quality_reason(PROSE, GOPHER) is None
    assert length_reason("too short", **words) == "2 words, at least 50"
    assert "stop words" in str(quality_reason("Der Hund schläft heute sehr lange im Garten hinter dem Haus", GOPHER))
    assert quality_reason(f"{PROSE}\n{PROSE}\n{PROSE}", GOPHER) == "share of repeated lines: 0.667, at most 0.3"


def test_bounds_outside_their_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_letters must be a share from 0 to 1, got 1\.5"):
        QualityRules(min_letters=1.5)
    with pytest.raises(ConfigError, match="5-grams must be a share"):
        QualityRules(max_repeated_ngrams=((5, 2.0),))
    with pytest.raises(ConfigError, match="n-grams need at least 1 word"):
        QualityRules(max_top_ngrams=((0, 0.5),))
