"""Answers of a model to the items of a task, as the metrics see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instructgpt_fast.evaluate.intervals import ValueOf
from instructgpt_fast.evaluate.items import Item
from instructgpt_fast.evaluate.measure import Measure, mean_of
from instructgpt_fast.generate import Completion


@dataclass(frozen=True)
class Answered:
    """One item: its prompt, the model's answers, their texts as they are scored, and what would be right.

    references: texts of which any is right; none for a question without an answer, or a task without references.
    """

    item: Item
    prompt: str
    answers: Sequence[Completion]
    texts: Sequence[str]
    references: Sequence[str]


@dataclass(frozen=True)
class AnswerSet:
    """All items of a task, answered. data: what `Measure.data` says. options: a GenerationTask."""

    task: str
    data: str
    items: Sequence[Answered]
    options: Any

    def measure(
        self, metric: str, statistics: np.ndarray, value_of: ValueOf = mean_of, **about: Any
    ) -> Measure:
        """A measure of one row of `statistics` an item: float64 [N] or [N, S]."""
        return Measure(self.task, metric, statistics, value_of, data=self.data, **about)

    def mean(self, metric: str, score: Callable[[Answered, str], float], **about: Any) -> Measure:
        """The mean over items of the mean of a score over their answers; score: (item, text) -> number."""
        return self.measure(metric, self.each(score), **about)

    def each(self, score: Callable[[Answered, str], float]) -> np.ndarray:
        """Mean score of each item's answers; float64 [N]."""
        return np.array([np.mean([score(each, text) for text in each.texts]) for each in self.items])

    def sums(self, statistics: Callable[[Answered, str], Sequence[float]]) -> np.ndarray:
        """Sums over each item's answers of what a metric counts; float64 [N, S]."""
        return np.array([np.sum([statistics(each, text) for text in each.texts], axis=0) for each in self.items])

