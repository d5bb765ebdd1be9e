"""BLEU, chrF and ROUGE equal sacrebleu and rouge-score: on their own published cases and on random text."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate.measure import Measure
from instructgpt_fast.evaluate.text_scores import bleu, chrf, rouge

from .answered import answer_set, sentence

# The example of sacrebleu's README, section "Using SacreBLEU from Python", with the figures printed there.
SYSTEM = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
FIRST = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
SECOND = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]


def published() -> list[list[str]]:
    return [[first, second] for first, second in zip(FIRST, SECOND, strict=True)]


def test_bleu_of_the_published_example() -> None:
    measure, = bleu(answer_set([[text] for text in SYSTEM], published()))
    assert round(measure.value, 2) == 48.53
    sums = measure.items.sum(axis=0)
    assert sums[:2].tolist() == [17, 18]
    assert [round(100 * a / b, 1) for a, b in zip(sums[2:6], sums[6:], strict=True)] == [82.4, 50.0, 45.5, 37.5]
    assert measure.details["signature"].startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_bleu_with_fewer_references_for_some() -> None:
    """sacrebleu takes None where a sentence has no further reference, and says so in the signature."""
    references = [["The dog bit the man."], ["It was not unexpected.", "No one was surprised."],
                  ["The man bit him first.", "The man had bitten the dog."]]
    measure, = bleu(answer_set([[text] for text in SYSTEM], references))
    whole = BLEU().corpus_score(SYSTEM, [FIRST, [None, *SECOND[1:]]])
    assert measure.value == pytest.approx(whole.score, abs=1e-9)
    assert "nrefs:var" in measure.details["signature"]


def test_chrf_of_the_published_example() -> None:
    measure, = chrf(answer_set([[text] for text in SYSTEM], published()))
    assert round(measure.value, 2) == 59.73
    assert measure.details["signature"].startswith("nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


@pytest.mark.parametrize(("target", "prediction", "rouge1", "rouge2", "rouge_l"), [
    # From rouge-score's README and the cases of its own tests.
    (["The quick brown fox jumps over the lazy dog"], "The quick brown dog jumps on the log.",
     12 / 17, 4 / 15, 10 / 17),
    (["testing one two"], "testing", 1 / 2, 0.0, 1 / 2),
    (["testing one two"], "testing one", 4 / 5, 2 / 3, 4 / 5),
    (["testing one two"], "testing two", 4 / 5, 0.0, 4 / 5),
    (["testing one two"], "", 0.0, 0.0, 0.0),
    (["first text", "first something"], "text first", 1.0, 0.0, 0.5),
])
def test_rouge_of_the_published_cases(
    target: list[str], prediction: str, rouge1: float, rouge2: float, rouge_l: float
) -> None:
    found = rouge(answer_set([[prediction]], [target], metrics=("rouge1", "rouge2", "rouge_l"), rouge_stemmer=False))
    assert [each.metric for each in found] == ["rouge1", "rouge2", "rouge_l"]
    assert [each.value for each in found] == pytest.approx([rouge1, rouge2, rouge_l])


def test_rouge_lsum_of_the_published_cases() -> None:
    def value(target: str, prediction: str) -> float:
        return rouge(answer_set([[prediction]], [[target]], metrics=("rouge_lsum",)))[0].value

    assert value("First sentence.\nSecond Sentence.", "Second sentence.\nFirst Sentence.") == pytest.approx(1.0)
    assert value("First sentence. Second Sentence.", "Second sentence. First Sentence.") == pytest.approx(0.5)
    # Lin 2004, section 3.2: w1 w2 and w1 w3 w5 together are 4 of the reference's 5 words, and 10 words were said.
    assert value("w1 w2 w3 w4 w5", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5") == pytest.approx(2 * 0.8 * 0.4 / 1.2)


@pytest.mark.parametrize("seed", range(4))
def test_random_text_scores_as_the_packages_say(seed: int) -> None:
    generator = random.Random(seed)
    texts = [sentence(generator) for _ in range(25)]
    references = [[sentence(generator) for _ in range(generator.randint(1, 3))] for _ in texts]
    streams = [[each[place] if place < len(each) else None for each in references] for place in range(3)]
    answers = answer_set([[text] for text in texts], references, metrics=("rouge1", "rouge2", "rouge_l", "rouge_lsum"))
    assert bleu(answers)[0].value == pytest.approx(BLEU().corpus_score(texts, streams).score, abs=1e-9)
    assert chrf(answers)[0].value == pytest.approx(CHRF().corpus_score(texts, streams).score, abs=1e-9)
    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(kinds, use_stemmer=True)
    scored = [scorer.score_multi(right, text) for text, right in zip(texts, references, strict=True)]
    for kind, measure in zip(kinds, rouge(answers), strict=True):
        assert measure.value == pytest.approx(np.mean([each[kind].fmeasure for each in scored]))


def test_tokenizers_of_sacrebleu() -> None:
    answers = answer_set([["私は犬 です"], ["it's ok"]], [["私は 犬です"], ["it 's ok"]], bleu_tokenize="char")
    whole = BLEU(tokenize="char").corpus_score(["私は犬 です", "it's ok"], [["私は 犬です", "it 's ok"]])
    assert bleu(answers)[0].value == pytest.approx(whole.score) and whole.score > 50
    assert "tok:char" in bleu(answers)[0].details["signature"]


def test_several_answers_count_each() -> None:
    """Two answers to an item are as two items with the same references; the item stays one for the interval."""
    texts = ["the cat sat", "a dog ran home", "the tree", "it ran"]
    references = [["the cat sat there"], ["the dog ran home"]]
    together = answer_set([texts[:2], texts[2:]], references)
    apart = answer_set([[text] for text in texts], [references[0], references[0], references[1], references[1]])
    for score in (bleu, chrf):
        assert score(together)[0].value == pytest.approx(score(apart)[0].value)
        assert len(score(together)[0].items) == 2


def resampled(measure: Measure, texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """A resample's value is the package's score of that resample."""
    generator = np.random.default_rng(0)
    for _ in range(5):
        rows = generator.integers(0, len(texts), len(texts))
        picked = [list(references[row]) for row in rows]
        scorer = BLEU() if measure.metric == "bleu" else CHRF()
        whole = scorer.corpus_score([texts[row] for row in rows], [[each[0] for each in picked]]).score
        assert measure.value_of(measure.items[rows].sum(axis=0), len(rows)) == pytest.approx(whole, abs=1e-9)


def test_the_bootstrap_resamples_what_the_packages_would() -> None:
    generator = random.Random(7)
    texts = [sentence(generator) for _ in range(30)]
    references = [[sentence(generator)] for _ in texts]
    answers = answer_set([[text] for text in texts], references)
    for score in (bleu, chrf):
        measure, = score(answers)
        resampled(measure, texts, references)
        low, high = measure.interval() or (math.nan, math.nan)
        assert 0.0 <= low < measure.value < high <= 100.0


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ConfigError, match=r"needs the package sacrebleu.*pip install 'instructgpt_fast\[eval\]'"):
        bleu(answer_set([["a"]], [["a"]]))
