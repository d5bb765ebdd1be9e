"""Length and quality of a text: each rule gives the reason why the text fails it, with the numbers, or None.

Not covered: meaning. A fluent text that is wrong passes, and a good table or a poem may fail the rules for prose.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from instructgpt_fast.errors import ConfigError

__all__ = ["DEFAULT", "GOPHER", "GOPHER_WORDS", "QualityRules", "length_reason", "quality_reason"]

_NO_LETTER = re.compile(r"[\d_]+|[^\w\s]+")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "‣", "▪", "●", "- ", "* ")
_ELLIPSES = ("...", "…")
# C0 and C1 controls without tab, line feed and carriage return; U+FFFD, private use and lone surrogates.
_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff\ud800-\udfff]")
# UTF-8 read as Latin-1 or Windows-1252: a leading byte as a letter, its continuation as a sign.
_MOJIBAKE = re.compile("[ÃÂ][\x80-\xbf‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â(?:€|\x80)[\x80-\xbf‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|ï»¿")


def length_reason(
    text: str, *, min_characters: int = 0, max_characters: int | None = None, min_words: int = 0,
    max_words: int | None = None,
) -> str | None:
    """Return why `text` is too short or too long, or None. Characters are code points, words what spaces part."""
    characters = len(text)
    if characters < min_characters:
        return f"{characters} characters, at least {min_characters}"
    if max_characters is not None and characters > max_characters:
        return f"{characters} characters, at most {max_characters}"
    if min_words or max_words is not None:
        words = len(text.split())
        if words < min_words:
            return f"{words} words, at least {min_words}"
        if max_words is not None and words > max_words:
            return f"{words} words, at most {max_words}"
    return None


@dataclass(frozen=True)
class QualityRules:
    """Bounds of `quality_reason`; None leaves a rule out. Shares are of 1.

    The defaults [O] refuse what is no text in any language; GOPHER has the rules of Rae et al. 2021 for English prose.
    """

    min_letters: float | None = 0.2  # share of letters among the characters that are not spaces
    max_broken: float | None = 0.01  # share of control characters, U+FFFD, private use and mojibake
    min_mean_word: float | None = None  # characters a word, on average
    max_mean_word: float | None = None
    max_symbols: float | None = None  # number signs or ellipses a word
    max_bullet_lines: float | None = None
    max_ellipsis_lines: float | None = None
    min_words_with_letter: float | None = None
    min_stop_words: int | None = None  # how many of the, be, to, of, and, that, have, with; each counted once
    max_repeated_lines: float | None = 0.5  # share of lines that stood before in the text
    max_repeated_paragraphs: float | None = None
    max_repeated_line_characters: float | None = None
    max_repeated_paragraph_characters: float | None = None
    max_top_ngrams: tuple[tuple[int, float], ...] = ()  # (n, share of characters in the most frequent n-gram)
    max_repeated_ngrams: tuple[tuple[int, float], ...] = ((5, 0.6),)  # (n, share in n-grams that occur twice or more)
    min_words_judged: int = 20  # a shorter text is not judged by its repetitions: two equal lines of two are no habit

    def __post_init__(self) -> None:
        """Raise ConfigError for a share outside 0 to 1 or an n-gram of no words."""
        shares = {name: value for name, value in vars(self).items() if isinstance(value, float) and "word" not in name}
        shares |= {f"{n}-grams": share for n, share in (*self.max_top_ngrams, *self.max_repeated_ngrams)}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"QualityRules: {name} must be a share from 0 to 1, got {share}")
        if any(n < 1 for n, _ in (*self.max_top_ngrams, *self.max_repeated_ngrams)):
            raise ConfigError("QualityRules: n-grams need at least 1 word, got less")


# Rae et al. 2021 (arXiv:2112.11446), section A.1.1 and its Table A1 [A]; words there: 50 to 100,000 (GOPHER_WORDS).
GOPHER = QualityRules(
    min_letters=None, max_broken=None, min_mean_word=3.0, max_mean_word=10.0, max_symbols=0.1, max_bullet_lines=0.9,
    max_ellipsis_lines=0.3, min_words_with_letter=0.8, min_stop_words=2, max_repeated_lines=0.3,
    max_repeated_paragraphs=0.3, max_repeated_line_characters=0.2, max_repeated_paragraph_characters=0.2,
    max_top_ngrams=((2, 0.20), (3, 0.18), (4, 0.16)),
    max_repeated_ngrams=((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)), min_words_judged=0,
)
GOPHER_WORDS = (50, 100_000)
DEFAULT = QualityRules()


def quality_reason(text: str, rules: QualityRules = DEFAULT) -> str | None:
    """Return the first rule that `text` breaks as words with the share and its bound, or None.

    In the order: broken characters, letters, words, lines, repetitions; the cheap ones first.
    """
    words = text.split()
    if not words:
        return "no words"
    return (
        _characters_reason(text, words, rules)
        or _words_reason(text, words, rules)
        or _lines_reason(text, rules)
        or (_repetition_reason(text, words, rules) if len(words) >= rules.min_words_judged else None)
    )


def _above(what: str, share: float, bound: float | None) -> str | None:
    return None if bound is None or share <= bound else f"{what}: {share:.3f}, at most {bound:g}"


def _below(what: str, share: float, bound: float | None) -> str | None:
    return None if bound is None or share >= bound else f"{what}: {share:.3f}, at least {bound:g}"


def _characters_reason(text: str, words: list[str], rules: QualityRules) -> str | None:
    reason = None
    if rules.max_broken is not None and not (text.isascii() and text.isprintable()):
        broken = sum(map(len, _BROKEN.findall(text))) + sum(map(len, _MOJIBAKE.findall(text)))
        reason = _above("share of broken characters", broken / len(text), rules.max_broken)
    if reason is None and rules.min_letters is not None:
        visible = sum(map(len, words))
        letters = visible - sum(map(len, _NO_LETTER.findall(text)))
        reason = _below("share of letters", letters / visible, rules.min_letters)
    return reason


def _words_reason(text: str, words: list[str], rules: QualityRules) -> str | None:
    n = len(words)
    mean = sum(map(len, words)) / n
    reason = _below("mean characters a word", mean, rules.min_mean_word) or _above(
        "mean characters a word", mean, rules.max_mean_word
    )
    if reason is None and rules.max_symbols is not None:
        for name, count in (("number signs", text.count("#")), ("ellipses", sum(map(text.count, _ELLIPSES)))):
            reason = reason or _above(f"{name} a word", count / n, rules.max_symbols)
    if reason is None and rules.min_words_with_letter is not None:
        lettered = sum(any(map(str.isalpha, word)) for word in words)
        reason = _below("share of words with a letter", lettered / n, rules.min_words_with_letter)
    if reason is None and rules.min_stop_words is not None:
        stops = len(_STOP_WORDS.intersection(word.strip(".,;:!?\"'()").lower() for word in words))
        if stops < rules.min_stop_words:
            reason = f"different English stop words: {stops}, at least {rules.min_stop_words}"
    return reason


def _lines_reason(text: str, rules: QualityRules) -> str | None:
    if rules.max_bullet_lines is None and rules.max_ellipsis_lines is None:
        return None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    bullets = sum(line.startswith(_BULLETS) for line in lines) / len(lines)
    trailing = sum(line.endswith(_ELLIPSES) for line in lines) / len(lines)
    return _above("share of lines that begin with a bullet", bullets, rules.max_bullet_lines) or _above(
        "share of lines that end with an ellipsis", trailing, rules.max_ellipsis_lines
    )


def _repetition_reason(text: str, words: list[str], rules: QualityRules) -> str | None:
    for name, parts, of_parts, of_characters in (
        ("lines", text.split("\n"), rules.max_repeated_lines, rules.max_repeated_line_characters),
        ("paragraphs", _PARAGRAPH.split(text), rules.max_repeated_paragraphs, rules.max_repeated_paragraph_characters),
    ):
        if of_parts is None and of_characters is None:
            continue
        kept = [part for part in map(str.strip, parts) if part]
        again = [part for part, count in Counter(kept).items() for _ in range(count - 1)]
        reason = _above(f"share of repeated {name}", len(again) / len(kept), of_parts) or _above(
            f"share of characters in repeated {name}", sum(map(len, again)) / len(text), of_characters
        )
        if reason:
            return reason
    return _ngrams_reason(words, rules)


def _ngrams_reason(words: list[str], rules: QualityRules) -> str | None:
    lengths = list(map(len, words))
    characters = sum(lengths)
    for n, bound in rules.max_top_ngrams:
        counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
        gram, count = max(counts.items(), key=lambda item: item[1], default=((), 0))
        share = sum(map(len, gram)) * count / characters if count > 1 else 0.0
        if reason := _above(f"share of characters in the most frequent {n} words", share, bound):
            return reason
    for n, bound in rules.max_repeated_ngrams:
        grams = list(zip(*(words[i:] for i in range(n)), strict=False))
        counts = Counter(grams)
        covered = bytearray(len(words))
        for place, gram in enumerate(grams):
            if counts[gram] > 1:
                covered[place : place + n] = b"\x01" * n  # words that overlapping n-grams share count once
        share = sum(length for length, hit in zip(lengths, covered, strict=True) if hit) / characters
        if reason := _above(f"share of characters in repeated {n} words", share, bound):
            return reason
    return None
