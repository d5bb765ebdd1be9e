"""How much answers repeat themselves and each other, how long they are, and how they end.

distinct-n: different n-grams over all n-grams (Li et al. 2016, arXiv:1510.03055, section 5.1). self-BLEU: mean BLEU of
each answer with the other answers as its references (Zhu et al. 2018, arXiv:1802.01886): 100 is one answer over and
over. Words are what white space parts. With several answers to a prompt both look at the answers to one prompt, then
average over prompts; with one answer to each prompt they look at all answers together, and then have no interval,
because drawing answers anew with replacement makes repeats by itself. Self-BLEU looks at the first 200 of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from instructgpt_fast.evaluate.answers import AnswerSet
from instructgpt_fast.evaluate.measure import Measure, ratio_of
from instructgpt_fast.evaluate.text_scores import scoring_package

# self-BLEU compares each answer with each other one; with so many it takes seconds.
SELF_BLEU_ANSWERS = 200


def distinct(texts: Sequence[str], order: int) -> float:
    """Share of different n-grams among all n-grams of the texts; nan without any."""
    grams = Counter(gram for text in texts for gram in _ngrams(text, order))
    return len(grams) / grams.total() if grams else float("nan")


def self_bleu(texts: Sequence[str]) -> float:
    """Mean over texts of sacrebleu's sentence BLEU against all others, 0 to 100; nan for fewer than two."""
    texts = texts[:SELF_BLEU_ANSWERS]
    if len(texts) < 2:
        return float("nan")
    scorer = scoring_package("sacrebleu.metrics").BLEU(effective_order=True)
    scores = [
        scorer.sentence_score(text, [other for where, other in enumerate(texts) if where != place]).score
        for place, text in enumerate(texts)
    ]
    return float(np.mean(scores))


def distinct_1(answers: AnswerSet) -> list[Measure]:
    """Share of different words."""
    return [_in_groups(answers, "distinct_1", [distinct(texts, 1) for texts in _groups(answers)], (0.0, 1.0), True)]


def distinct_2(answers: AnswerSet) -> list[Measure]:
    """Share of different pairs of words that follow each other."""
    return [_in_groups(answers, "distinct_2", [distinct(texts, 2) for texts in _groups(answers)], (0.0, 1.0), True)]


def self_bleu_measure(answers: AnswerSet) -> list[Measure]:
    """How alike the answers are."""
    return [_in_groups(answers, "self_bleu", [self_bleu(texts) for texts in _groups(answers)], (0.0, 100.0), False)]


def length(answers: AnswerSet) -> list[Measure]:
    """Mean number of tokens of an answer, without the token that ends it."""
    lengths = [np.mean([len(one.tokens) - one.finished for one in each.answers]) for each in answers.items]
    return [answers.measure("length", np.array(lengths), unit="tokens", higher_is_better=None, bounds=(0.0, math.inf))]


def ending(answers: AnswerSet) -> list[Measure]:
    """Shares of answers that the model ended by itself (EOS), and that were cut off at max_new_tokens."""

    def share(metric: str, reason: str, higher_is_better: bool) -> Measure:
        shares = [np.mean([one.finish_reason == reason for one in each.answers]) for each in answers.items]
        return answers.measure(metric, np.array(shares), bounds=(0.0, 1.0), higher_is_better=higher_is_better)

    return [share("eos_rate", "eos", True), share("cut_rate", "length", False)]


def _groups(answers: AnswerSet) -> list[Sequence[str]]:
    if answers.options.n > 1:
        return [each.texts for each in answers.items]
    return [[text for each in answers.items for text in each.texts]]


def _in_groups(
    answers: AnswerSet, metric: str, values: Sequence[float], bounds: tuple[float, float], higher_is_better: bool
) -> Measure:
    """Mean over the groups in which the metric is defined."""
    known = np.array([value == value for value in values], dtype=np.float64)
    items = np.stack([np.nan_to_num(np.array(values)), known], axis=1)
    return answers.measure(
        metric, items, ratio_of, bounds=bounds, higher_is_better=higher_is_better, independent=len(values) > 1,
        count=len(answers.items),
    )


def _ngrams(text: str, order: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[begin:begin + order]) for begin in range(len(words) - order + 1)]
