"""BLEU, chrF and ROUGE of answers against references, each as counts of items whose sums give the package's own score.

BLEU (Papineni et al. 2002) is counted and summed up by sacrebleu and ROUGE (Lin 2004) is scored by rouge-score; chrF
(Popovic 2015) is counted here, as sacrebleu has no public way to its counts, and equals sacrebleu's corpus score.
Texts go in as they are: sacrebleu tokenizes by itself (13a unless the task says otherwise).

Not covered: ROUGE-Lsum takes lines as sentences: a text on one line has the ROUGE-L of its only sentence.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate.answers import Answered, AnswerSet
from instructgpt_fast.evaluate.measure import Measure

ORDERS = 6  # lengths of chrF's character n-grams, 1 to 6
BETA = 2  # chrF weighs recall twice
ROUGE = {"rouge1": "rouge1", "rouge2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}


def scoring_package(name: str) -> Any:
    """Import sacrebleu or rouge_score's parts; raises ConfigError that says how to install them."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as cause:
        raise ConfigError(
            f"evaluate: this metric needs the package {cause.name}, got none installed; run pip install "
            "'instructgpt_fast[eval]'."
        ) from cause


def bleu(answers: AnswerSet) -> list[Measure]:
    """Corpus BLEU of sacrebleu, 0 to 100; the details hold its signature."""
    metrics = scoring_package("sacrebleu.metrics")
    tokenize = answers.options.bleu_tokenize
    # A sentence of fewer than four words has no 4-grams to count: effective_order spares sacrebleu's warning about it
    # and leaves the counts as they are.
    scorer = metrics.BLEU(tokenize=tokenize, effective_order=True)

    def counts(item: Answered, text: str) -> list[float]:
        found = scorer.sentence_score(text, list(item.references))
        return [found.sys_len, found.ref_len, *found.counts, *found.totals]

    def value(sums: np.ndarray, count: int) -> float:
        whole = [round(number) for number in sums]
        return float(
            metrics.BLEU.compute_bleu(
                whole[2:6], whole[6:10], sys_len=whole[0], ref_len=whole[1], smooth_method="exp"
            ).score
        )

    details = {"signature": _signature(metrics.BLEU(tokenize=tokenize), answers)}
    return [answers.measure("bleu", answers.sums(counts), value, bounds=(0.0, 100.0), details=details)]


def chrf(answers: AnswerSet) -> list[Measure]:
    """Corpus chrF2 as sacrebleu defines it, 0 to 100; of several references the one with the best score counts."""
    metrics = scoring_package("sacrebleu.metrics")

    def counts(item: Answered, text: str) -> list[float]:
        found = [chrf_counts(text, reference) for reference in item.references]
        return max(found, key=chrf_of_counts)

    def value(sums: np.ndarray, count: int) -> float:
        return chrf_of_counts(list(sums))

    details = {"signature": _signature(metrics.CHRF(), answers)}
    return [answers.measure("chrf", answers.sums(counts), value, bounds=(0.0, 100.0), details=details)]


def chrf_counts(text: str, reference: str) -> list[float]:
    """(n-grams of the text, of the reference, common) for each length 1..6, white space left out; 18 numbers."""
    first, second = "".join(text.split()), "".join(reference.split())
    numbers: list[float] = []
    for order in range(1, ORDERS + 1):
        mine, theirs = _ngrams(first, order), _ngrams(second, order)
        # Where the reference has no n-gram of a length, that length says nothing about the text.
        numbers += [mine.total() if theirs else 0, theirs.total(), (mine & theirs).total()]
    return numbers


def chrf_of_counts(numbers: Sequence[float]) -> float:
    """F-score of the precision and recall averaged over the lengths that both sides have, times 100."""
    used = [numbers[3 * i:3 * i + 3] for i in range(ORDERS) if numbers[3 * i] > 0 and numbers[3 * i + 1] > 0]
    if not used:
        return 0.0
    precision = sum(common / mine for mine, _, common in used) / len(used)
    recall = sum(common / theirs for _, theirs, common in used) / len(used)
    below = BETA**2 * precision + recall
    return 100.0 * (1 + BETA**2) * precision * recall / below if below else 0.0


def rouge(answers: AnswerSet) -> list[Measure]:
    """F-measures of rouge-score, 0 to 1, as many as the task names; the best of several references counts."""
    package = scoring_package("rouge_score.rouge_scorer")
    wanted = [name for name in ROUGE if name in answers.options.metrics]
    scorer = package.RougeScorer([ROUGE[name] for name in wanted], use_stemmer=answers.options.rouge_stemmer)
    found = [
        [scorer.score_multi(list(each.references), text) for text in each.texts] for each in answers.items
    ]
    details = {"stemmer": "porter" if answers.options.rouge_stemmer else "none"}
    return [
        answers.measure(
            name, np.array([np.mean([one[ROUGE[name]].fmeasure for one in scores]) for scores in found]),
            bounds=(0.0, 1.0), details=details,
        )
        for name in wanted
    ]


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[begin:begin + order] for begin in range(len(text) - order + 1))


def _signature(scorer: Any, answers: AnswerSet) -> str:
    """sacrebleu's own words for what was computed; it knows the number of references from a first score."""
    most = max(len(each.references) for each in answers.items)
    streams = [
        [each.references[place] if place < len(each.references) else None for each in answers.items]
        for place in range(most)
    ]
    scorer.corpus_score([each.texts[0] for each in answers.items], streams)
    return str(scorer.get_signature())
