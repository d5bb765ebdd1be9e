"""Task files of kind perplexity: how well a model predicts the texts of a jsonl, each read by itself."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from instructgpt_fast.checkpoint import Loaded
from instructgpt_fast.config import options_class
from instructgpt_fast.errors import DataError
from instructgpt_fast.evaluate.intervals import ValueOf
from instructgpt_fast.evaluate.items import read_items
from instructgpt_fast.evaluate.likelihood import rolling_loglikelihoods
from instructgpt_fast.evaluate.measure import Measure, ratio_of
from instructgpt_fast.evaluate.outcome import Outcome, language_model
from instructgpt_fast.evaluate.task_file import Task, TaskOptions


@options_class()
class PerplexityTask(TaskOptions):
    """Texts to predict; the item of every interval is a text."""

    texts: ClassVar[tuple[str, ...]] = ("text",)

    text: str = "{text}"
    """The text of an item."""
    overlap: int = 1
    """Tokens of context that each window past the first has at least, for texts beyond the model's context."""


    def check(self) -> None:
        """Refuse windows without context."""
        super().check()
        self.require("overlap must be at least 1", self.overlap >= 1, overlap=self.overlap)


def exp_ratio(sums: np.ndarray, count: int) -> float:
    """exp of a ratio; infinite where that does not fit a float."""
    ratio = ratio_of(sums, count)
    return math.exp(ratio) if not ratio > 700.0 else math.inf


def run_perplexity(task: Task, loaded: Loaded, config: Any) -> Outcome:
    """Nats per token, perplexity and bits per byte; config: an EvaluateConfig."""
    options: PerplexityTask = task.options
    model, tokenizer = language_model(task.name, loaded), loaded.tokenizer
    items = read_items(options.data, options.limit, config.limit, on_bad_line=config.on_bad_line)
    texts = [options.fill("text", item) for item in items]
    tokens = tokenizer.encode_batch(texts)
    if not any(tokens):
        raise DataError(f"{task.name}: a text must have at least one token, got none in {len(texts)} items", items.path)
    found = rolling_loglikelihoods(
        model, tokenizer, tokens, overlap=options.overlap, batch_size=config.batch_size
    )
    nats = np.array([-each.logprob for each in found])
    counts = np.array([each.tokens for each in found], dtype=np.float64)
    sizes = np.array([len(text.encode()) for text in texts], dtype=np.float64)

    # Per token only models of one tokenizer compare.
    by_token = f"{tokenizer.fingerprint[:12]} {items.identity}"

    def measure(
        metric: str, tops: np.ndarray, bottoms: np.ndarray, unit: str, data: str, value_of: ValueOf = ratio_of
    ) -> Measure:
        pairs = np.stack([tops, bottoms], axis=1)
        return Measure(task.name, metric, pairs, value_of, False, unit, data=data, count=int(bottoms.sum()))

    return Outcome(
        [
            measure("loss", nats, counts, "nats", by_token),
            measure("perplexity", nats, counts, "", by_token, exp_ratio),
            measure("bits_per_byte", nats / math.log(2.0), sizes, "bits", items.identity),
        ],
        [
            {"line": item.line, "nats": -each.logprob, "tokens": each.tokens, "bytes": int(size)}
            for item, each, size in zip(items, found, sizes, strict=True)
        ],
        {"data": str(items.path), "sha256": items.sha256, "items": len(items), "skipped": items.skipped},
    )
