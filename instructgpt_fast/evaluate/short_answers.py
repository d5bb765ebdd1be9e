"""Short answers: exact match and F1 by the formula of SQuAD (Rajpurkar et al. 2016, 2018), accuracy of labels.

For SQuAD texts are compared in small letters, without ASCII punctuation, without the words a, an and the, and with
white space as one blank. F1 is that of the words as bags. Of several right answers the best score counts; an answer
that is nothing after this is right for a question without one, and for no other.

Not covered: where SQuAD's first script differs from its second: an answer and a reference that are both nothing but
articles and punctuation score F1 1 as in the second, not 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from instructgpt_fast.evaluate.answers import Answered, AnswerSet
from instructgpt_fast.evaluate.measure import Measure

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Small letters, no punctuation, no articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(text: str, references: Sequence[str]) -> float:
    """1 when the text is a reference after normalization, else 0."""
    return float(normalized(text) in _right(references))


def token_f1(text: str, references: Sequence[str]) -> float:
    """Best F1 of the text's words against those of a reference, 0 to 1."""
    return max(_f1(normalized(text).split(), reference.split()) for reference in _right(references))


def exact_match_measures(answers: AnswerSet) -> list[Measure]:
    """Percentage of answers that are exactly right; also apart for questions with and without an answer."""
    return _measures(answers, "exact_match", exact_match)


def f1_measures(answers: AnswerSet) -> list[Measure]:
    """Mean F1 in percent; also apart for questions with and without an answer."""
    return _measures(answers, "f1", token_f1)


def accuracy(answers: AnswerSet) -> list[Measure]:
    """Share of answers that are a right label, whatever their case and the punctuation at their ends."""

    def right(item: Answered, text: str) -> float:
        return float(bare(text) in {bare(reference) for reference in item.references})

    return [answers.mean("accuracy", right, bounds=(0.0, 1.0))]


def bare(label: str) -> str:
    """A label without case, outer white space and outer punctuation."""
    return label.strip().strip(".,;:!?\"'").strip().casefold()


def _right(references: Sequence[str]) -> list[str]:
    """References after normalization; those of which nothing is left do not count, and none at all means no answer."""
    return [short for reference in references if (short := normalized(reference))] or [""]


def _f1(words: Sequence[str], reference: Sequence[str]) -> float:
    if not words or not reference:
        return float(not words and not reference)
    common = (Counter(words) & Counter(reference)).total()
    return 2 * common / (len(words) + len(reference))


def _measures(answers: AnswerSet, metric: str, score: Callable[[str, Sequence[str]], float]) -> list[Measure]:
    nothing = normalized(answers.options.no_answer)

    def judged(item: Answered, text: str) -> float:
        return score("" if nothing and normalized(text) == nothing else text, item.references)

    scores = answers.each(judged)
    found = [answers.measure(metric, scores, bounds=(0.0, 1.0), scale=100.0)]
    has = np.array([_right(each.references) != [""] for each in answers.items])
    if 0 < has.sum() < len(has):
        for name, which in (("has_answer", has), ("no_answer", ~has)):
            found.append(answers.measure(f"{metric}_{name}", scores[which], bounds=(0.0, 1.0), scale=100.0))
    return found
