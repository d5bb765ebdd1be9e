"""The language of a text, by py3langid's model (Lui and Baldwin 2011, trained anew), with "und" for what is too short.

Not covered: texts of several languages (one answer is given), and languages outside the model's own, which get the
nearest name it has.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from instructgpt_fast.errors import ConfigError

__all__ = ["MIN_LETTERS", "UNDETERMINED", "check_languages", "language_of", "languages"]

UNDETERMINED = "und"  # as ISO 639-2 has it
MIN_LETTERS = 20  # an ideograph, a kana or a syllable of Hangul counts as _WIDE of them
_WIDE = 4
_WIDE_FROM = "\u2e80"  # the first of the East Asian blocks
_READ = 2000  # characters: more of a text change nothing but the time


def language_of(text: str) -> tuple[str, float]:
    """Return the likeliest language of `text` (ISO 639-1) and its probability among all that are known.

    A text with fewer than MIN_LETTERS letters gives ("und", 0.0): the model answers there too, but by accident. Only
    the first 2,000 characters are read. The same text always gives the same answer.
    """
    read = text[:_READ]
    letters = sum(_WIDE if c >= _WIDE_FROM else 1 for c in read if c.isalpha())
    if letters < MIN_LETTERS:
        return UNDETERMINED, 0.0
    language, probability = _identifier().classify(read)
    return str(language), float(probability)


def languages() -> frozenset[str]:
    """Return the codes that `language_of` can give, without "und"."""
    return frozenset(_identifier().labels)


def check_languages(wanted: tuple[str, ...]) -> None:
    """Raise ConfigError for a code that `language_of` never gives."""
    unknown = sorted(set(wanted) - languages() - {UNDETERMINED})
    if unknown:
        raise ConfigError(
            f"languages: codes of ISO 639-1 that the model knows, got {', '.join(unknown)}; choose from "
            f"{', '.join(sorted(languages()))}, {UNDETERMINED}"
        )


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ConfigError(
            "languages: telling languages needs the extra [hygiene], which is not installed; "
            "run: pip install 'instructgpt_fast[hygiene]'"
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
