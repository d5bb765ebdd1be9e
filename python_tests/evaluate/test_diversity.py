"""Distinct n-grams, self-BLEU, lengths and endings by hand."""

from __future__ import annotations

import math

import pytest
from sacrebleu.metrics import BLEU

from instructgpt_fast.evaluate.answers import Answered, AnswerSet
from instructgpt_fast.evaluate.diversity import (
    SELF_BLEU_ANSWERS,
    distinct,
    distinct_1,
    distinct_2,
    ending,
    length,
    self_bleu,
    self_bleu_measure,
)

from .answered import answer_set, completion


def test_distinct_by_hand() -> None:
    texts = ["the cat saw the cat", "the dog"]
    assert distinct(texts, 1) == 4 / 7                     # the cat saw dog, of 7 words
    assert distinct(texts, 2) == 4 / 5                     # "the cat" twice, of 4 + 1 pairs
    assert math.isnan(distinct(["", "word"], 2))


def test_all_answers_together_have_no_interval() -> None:
    answers = answer_set([["the cat"], ["the dog"], ["the cat"]], [[]] * 3)
    for score, value in ((distinct_1, 3 / 6), (distinct_2, 2 / 3)):
        measure, = score(answers)
        assert measure.value == pytest.approx(value) and measure.over == 3 and measure.interval() is None


def test_answers_to_one_prompt_are_compared_with_each_other() -> None:
    answers = answer_set([["a b", "a b"], ["a b", "c d"], ["", ""]], [[]] * 3)
    measure, = distinct_1(answers)
    assert measure.value == pytest.approx((0.5 + 1.0) / 2)  # an item without words says nothing
    assert measure.interval() is not None


def test_self_bleu() -> None:
    same = ["the cat sat on the mat"] * 3
    assert self_bleu(same) == pytest.approx(100.0)
    texts = ["the cat sat on the mat", "the cat ran on the mat", "a dog"]
    scorer = BLEU(effective_order=True)
    each = [scorer.sentence_score(text, texts[:place] + texts[place + 1:]).score for place, text in enumerate(texts)]
    assert self_bleu(texts) == pytest.approx(sum(each) / 3) and 0 < self_bleu(texts) < 100
    assert math.isnan(self_bleu(["alone"]))
    measure, = self_bleu_measure(answer_set([[text] for text in texts], [[]] * 3))
    assert measure.value == pytest.approx(self_bleu(texts)) and not measure.higher_is_better


def test_self_bleu_of_many_looks_at_the_first() -> None:
    texts = ["one two three four"] * SELF_BLEU_ANSWERS + ["five six seven eight"]
    assert self_bleu(texts) == pytest.approx(100.0)


def test_lengths_and_endings() -> None:
    base = answer_set([["x"], ["x"], ["x"], ["x"]], [[]] * 4)
    ends = [completion("x", *end) for end in (("eos", 5), ("stop", 4), ("length", 8), ("eos", 1))]
    pairs = zip(base.items, ends, strict=True)
    items = [Answered(each.item, each.prompt, [end], each.texts, []) for each, end in pairs]
    answers = AnswerSet("task", "data", items, base.options)
    found = length(answers)[0]
    assert found.value == (4 + 4 + 8 + 0) / 4  # without the token that ended it
    interval = found.interval()
    assert interval is not None and interval[0] == 0.0 < 4.0 < interval[1]  # no length is below zero
    eos, cut = ending(answers)
    assert (eos.metric, eos.value, cut.metric, cut.value) == ("eos_rate", 0.5, "cut_rate", 0.25)
