"""Answers made by hand, for the tests of metrics."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from instructgpt_fast.evaluate.answers import Answered, AnswerSet
from instructgpt_fast.evaluate.items import Item
from instructgpt_fast.generate import Completion

WORDS = [
    "the", "a", "an", "cat", "dog", "Dog", "sat", "ran,", "home.", "Home!", "tree", "(old)", "it's", "3.5", "naïve",
    "犬", "--", "running", "run",
]


def answer_set(
    texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]], *, metrics: Sequence[str] = (), **options: Any
) -> AnswerSet:
    """texts: the answers to each item. references: of each item."""
    usual: dict[str, Any] = {
        "metrics": tuple(metrics), "n": len(texts[0]), "bleu_tokenize": "13a", "rouge_stemmer": True, "no_answer": "",
    }
    items = [
        Answered(
            Item({}, Path("items.jsonl"), line), f"prompt {line}", [completion(text) for text in several],
            list(several), list(right),
        )
        for line, (several, right) in enumerate(zip(texts, references, strict=True), start=1)
    ]
    return AnswerSet("task", "data", items, SimpleNamespace(**{**usual, **options}))


def completion(text: str, reason: Any = "stop", tokens: int | None = None) -> Completion:
    count = len(text.split()) if tokens is None else tokens
    return Completion(list(range(count)), [0.0] * count, reason, text)


def sentence(generator: random.Random, most: int = 9) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(0, most)))
