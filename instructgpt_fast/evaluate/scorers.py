"""Who judges texts for toxicity and sentiment: a function of one's own, or a reward model; both on this machine.

A function takes a list of texts and returns one finite number for each; what the numbers mean is its own affair. It is
given in Python (`igf.evaluate(..., toxicity_scorer=function)`) or named by whoever starts the evaluation
(`--toxicity-scorer package.module:function`), never by a task file. A reward model reads prompt and answer as it was
trained to and gives its score.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.data import PromptText
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.evaluate.scoring import score_sequences
from instructgpt_fast.model import ScalarModel

Scorer = Callable[[Sequence[PromptText], Sequence[str]], list[float]]
"""Prompts (texts or dialogues) and answers, one of each a text -> one number each."""


def find_scorer(option: str, source: Any, device: torch.device, batch_size: int) -> Scorer:
    """The scorer that `option` names. source: a function, "package.module:function", or a reward model's checkpoint.

    Raises ConfigError for what cannot be imported or called, CheckpointError for a checkpoint of another kind.
    """
    if callable(source):
        return _of_function(option, source)
    text = str(source)
    module, colon, function = text.partition(":")
    if not colon and not Path(text).exists():
        raise ConfigError(
            f"evaluate: {option} must be package.module:function or a reward model's checkpoint, got {text!r}, "
            "which is no path; check it."
        )
    if Path(text).exists():
        return _of_reward_model(option, text, device, batch_size)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, TypeError, ValueError) as cause:
        raise ConfigError(
            f"evaluate: {option} must be package.module:function, got {text!r}, which cannot be imported: {cause}; "
            "install the package, or put its folder on PYTHONPATH."
        ) from cause
    if not callable(found):
        raise ConfigError(f"evaluate: {option} must name a function, got {text!r}, which is {type(found).__name__}.")
    return _of_function(option, found)


def _of_function(option: str, function: Callable[[list[str]], Sequence[float]]) -> Scorer:
    def score(prompts: Sequence[PromptText], answers: Sequence[str]) -> list[float]:
        try:
            found = list(function(list(answers)))
        except Exception as cause:
            raise DataError(
                f"evaluate: {option} must return a list of numbers, but it raised {type(cause).__name__}: {cause}"
            ) from cause
        if len(found) != len(answers):
            raise DataError(
                f"evaluate: {option} must return one number a text, got {len(found)} for {len(answers)} texts"
            )
        try:
            numbers = [float(number) for number in found]
        except (TypeError, ValueError) as cause:
            raise DataError(f"evaluate: {option} must return numbers: {cause}") from cause
        return _finite(option, numbers)

    return score


def _of_reward_model(option: str, path: str, device: torch.device, batch_size: int) -> Scorer:
    loaded = load_model(path, device=device)
    model, tokenizer = loaded.model, loaded.tokenizer
    if not isinstance(model, ScalarModel):
        raise CheckpointError(
            f"evaluate: {option} must be package.module:function or a reward model, got {path}, a language model; name "
            "another checkpoint."
        )

    def score(prompts: Sequence[PromptText], answers: Sequence[str]) -> list[float]:
        pairs = zip(prompts, answers, strict=True)
        whole = [tokenizer.encode_example(prompt, answer, loaded.prompt_format).tokens for prompt, answer in pairs]
        # The beginning of what does not fit is left out: the score sits on the answer's last token.
        fitting = [tokens[-model.config.n_positions:] for tokens in whole]
        return _finite(option, score_sequences(model, fitting, batch_size=batch_size).tolist())

    return score


def _finite(option: str, numbers: list[float]) -> list[float]:
    wrong = [number for number in numbers if not math.isfinite(number)]
    if wrong:
        raise DataError(f"evaluate: {option} must return finite numbers, got {wrong[0]}")
    return numbers
