"""Measuring models: perplexity, reward-model accuracy; `evaluate` runs tasks on a checkpoint and makes a table."""

from __future__ import annotations

from instructgpt_fast.callable_module import make_callable
from instructgpt_fast.evaluate.alignment_tax import AlignmentTax, alignment_tax
from instructgpt_fast.evaluate.likelihood import Likelihood, loglikelihoods, rolling_loglikelihoods
from instructgpt_fast.evaluate.measure import Difference, Measure
from instructgpt_fast.evaluate.options import EvaluateConfig
from instructgpt_fast.evaluate.pass_at_k import pass_at_k
from instructgpt_fast.evaluate.perplexity import Perplexity, joined, perplexity
from instructgpt_fast.evaluate.reading import read_comparisons, read_demonstrations, read_stream
from instructgpt_fast.evaluate.result import Evaluation, Row
from instructgpt_fast.evaluate.reward_accuracy import (
    Accuracy,
    Calibration,
    CalibrationBin,
    RankedAnswers,
    RewardAccuracy,
    calibration,
    reward_accuracy,
)
from instructgpt_fast.evaluate.scoring import judging, pack_tokens, score_sequences
from instructgpt_fast.evaluate.tasks import evaluate
from instructgpt_fast.evaluate.win_rate import WinRate, win_rate

__all__ = [
    "Accuracy",
    "AlignmentTax",
    "Calibration",
    "CalibrationBin",
    "Difference",
    "EvaluateConfig",
    "Evaluation",
    "Likelihood",
    "Measure",
    "Perplexity",
    "RankedAnswers",
    "RewardAccuracy",
    "Row",
    "WinRate",
    "alignment_tax",
    "calibration",
    "evaluate",
    "joined",
    "judging",
    "loglikelihoods",
    "pack_tokens",
    "pass_at_k",
    "perplexity",
    "read_comparisons",
    "read_demonstrations",
    "read_stream",
    "reward_accuracy",
    "rolling_loglikelihoods",
    "score_sequences",
    "win_rate",
]

make_callable(__name__, evaluate)
