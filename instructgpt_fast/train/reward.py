"""Reward modelling on ranked answers: its options first, then its loop (Ouyang et al. 2022, eq. 1, appendix C.2).

All C(K, 2) pairs of a prompt are one batch element and need K forward passes; ties are dropped. Defaults carry a
mark: [P] printed in the paper (arXiv:2203.02155), [O] our own choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from instructgpt_fast.config import options_class
from instructgpt_fast.errors import TrainingError
from instructgpt_fast.evaluate import (
    RankedAnswers,
    RewardAccuracy,
    pack_tokens,
    read_comparisons,
    read_demonstrations,
    reward_accuracy,
    score_sequences,
)
from instructgpt_fast.model import GPT, ScalarModel, scores_at_last
from instructgpt_fast.ops import ranking_loss
from instructgpt_fast.optim import cosine_to_fraction
from instructgpt_fast.train.calibration import keep_calibration
from instructgpt_fast.train.examples import ExampleStream, limits_of
from instructgpt_fast.train.flops import batch_flops
from instructgpt_fast.train.inputs import load_start, with_dropout
from instructgpt_fast.train.loop import Run, Training, TrainResult, check_space, open_run, training_bytes
from instructgpt_fast.train.options import ExampleOptions
from instructgpt_fast.train.presets import REWARD_PRESETS
from instructgpt_fast.train.step import MicroBatch, Updater

__all__ = ["RewardConfig", "run_reward"]

# The demonstrations' mean score after the shift, as a share of the scores' own size: f32 rounding, and no more.
ZERO_MEAN = 1e-5


@dataclass
class Seen:
    """Pairs of a training batch, and how many the model ordered as the labeler did."""

    pairs: int = 0
    correct: float = 0.0

    @property
    def accuracy(self) -> float:
        """Share of pairs in the labeler's order."""
        return self.correct / max(self.pairs, 1)


@options_class(REWARD_PRESETS)
class RewardConfig(ExampleOptions):
    """Options of reward modelling: model, comparisons, batch form, normalisation."""

    stage: ClassVar[str] = "reward"

    init: str
    """Checkpoint to start from: a language model, which gets a fresh scalar head, or a reward model to train on."""
    data: str
    """jsonl of comparisons: {"prompt", "completions", "ranks"}, or {"prompt", "chosen", "rejected"} for K = 2."""
    eval_data: str | None = None
    """jsonl of comparisons to measure accuracy on."""
    demonstrations: str | None = None
    """jsonl of demonstrations whose mean score becomes 0 after training [P]; None leaves the scores as they are."""
    prompt_format: Literal["inherit", "dialogue", "raw"] = "inherit"
    """How a prompt becomes tokens; inherit takes the format of init [O]."""
    per_device_train_batch_size: int = 8
    """Prompts (pairs, when not grouped) in one forward and backward pass, each with all its answers."""
    gradient_accumulation_steps: int = 8
    """Passes whose gradients are summed before a step: 8 * 8 prompts are the batch of 64 [P]."""
    num_train_epochs: float = 1.0
    """Passes over the comparisons; more overfit quickly [P]."""
    learning_rate: float = 9e-6
    """Peak learning rate [P]."""
    grouped: bool = True
    """All pairs of a prompt in one batch element [P]; --no-grouped shuffles single pairs, which overfits."""
    residual_dropout: float = 0.0
    """Dropout on the residual branches [O]."""

    def check(self) -> None:
        """Refuse a dropout that drops everything."""
        super().check()
        dropout = self.residual_dropout
        self.require("residual_dropout must lie in [0, 1)", 0 <= dropout < 1, residual_dropout=dropout)


def run_reward(config: RewardConfig) -> TrainResult:
    """Train a reward model on ranked answers; see `instructgpt_fast.train`."""
    with open_run("reward", config) as run:
        start = load_start(run, config.init)
        model, tokenizer = _scalar_model(start.model, config), start.tokenizer
        model.trunk.activation_checkpointing = config.gradient_checkpointing
        form = start.prompt_format if config.prompt_format == "inherit" else config.prompt_format
        limits = limits_of(config, model.config.n_positions)
        bad = config.on_bad_line
        data = read_comparisons(config.data, tokenizer, form, limits, bad, run.say)
        if not config.grouped:
            data = single_pairs(data)
        held_out = None
        if config.eval_data is not None:
            held_out = read_comparisons(config.eval_data, tokenizer, form, limits, bad, run.say)
        demonstrations = None
        if config.demonstrations is not None:
            demonstrations = read_demonstrations(config.demonstrations, tokenizer, form, limits, bad, run.say)
        updater = Updater.of(run, model, config)
        training = Training(model, tokenizer, form, {"model": model}, {"model": updater.optimizer})
        counters = training.counters
        check_space(run.directory, training_bytes(training.modules))
        stream = ExampleStream(len(data), config)
        first = run.resume(training)
        updater.restore(counters)
        stream.restore(counters)
        model.train()
        for step in run.steps(first, stream.steps):
            rate = cosine_to_fraction(
                step - 1, stream.steps, config.learning_rate,
                floor=config.min_learning_rate_ratio, warmup=config.warmup_steps,
            )
            chosen, seen = stream.batch(step), Seen()
            batch = micro_batches(model, [data[i] for i in chosen], config.per_device_train_batch_size, run, seen)
            outcome = updater.step(step, rate, batch, {"examples": chosen, "data": config.data})
            counters.update(updater.state() | stream.state(step))
            run.worked(
                sum(part.tensors["tokens"].numel() for part in batch),
                sum(batch_flops(model.config, part.tensors, 0) for part in batch),
            )
            metrics = {"loss": outcome.loss, "accuracy": seen.accuracy, "grad_norm": outcome.grad_norm}
            run.log(
                step, {**metrics, **updater.metrics(), "learning_rate": rate, "epoch": stream.epoch(step)},
                stream.steps,
            )
            counters["metrics"] = {**counters.get("metrics", {}), **metrics}
            if held_out is not None and run.due(config.eval_steps, step, stream.steps):
                found = reward_accuracy(model, held_out, batch_size=config.per_device_eval_batch_size)
                scores = judged(found)
                keep_calibration(run.directory, step, found)
                counters["metrics"].update(scores)
                run.record(step, scores)
            run.save_if_due(step, stream.steps, training)
        if demonstrations is not None and not counters.get("centred", False):
            sequences = [example.tokens for example in demonstrations]
            shift = centre_scores(model, sequences, config.per_device_eval_batch_size)
            counters["centred"] = True
            run.record(stream.steps, {"bias_shift": shift})
            run.save(stream.steps, training)
        return run.finish(stream.steps, training, counters["metrics"])


def _scalar_model(start: GPT | ScalarModel, config: RewardConfig) -> ScalarModel:
    if isinstance(start, ScalarModel):
        start.trunk = with_dropout(start.trunk, config.residual_dropout)
        return start
    return ScalarModel.from_gpt(with_dropout(start, config.residual_dropout))


def single_pairs(data: Sequence[RankedAnswers]) -> list[RankedAnswers]:
    """Every ordered pair as an element of its own, for the comparison with grouped batches (the paper's footnote 5)."""
    pairs: list[RankedAnswers] = []
    for item in data:
        for i, j in itertools.combinations(range(len(item.ranks)), 2):
            if item.ranks[i] != item.ranks[j]:
                better, worse = (i, j) if item.ranks[i] < item.ranks[j] else (j, i)
                pairs.append(RankedAnswers([item.sequences[better], item.sequences[worse]], [1, 2]))
    return pairs


def micro_batches(
    model: ScalarModel, items: Sequence[RankedAnswers], size: int, run: Run, seen: Seen
) -> list[MicroBatch]:
    """Cut prompts into packed micro-batches whose losses sum to the mean over the prompts of the whole batch."""
    weight = 1.0 / len(items)
    parts: list[MicroBatch] = []
    for begin in range(0, len(items), size):
        group = items[begin:begin + size]
        tokens, cu_seqlens = pack_tokens([sequence for item in group for sequence in item.sequences], run.device)
        offsets = torch.tensor([0, *itertools.accumulate(len(item.ranks) for item in group)], device=run.device)
        ranks = torch.tensor([rank for item in group for rank in item.ranks], device=run.device)
        tensors = {"tokens": tokens, "cu_seqlens": cu_seqlens, "ranks": ranks, "group_offsets": offsets}
        parts.append(MicroBatch(tensors, lambda batch: comparison_loss(model, batch, seen), weight))
    return parts


def comparison_loss(model: ScalarModel, batch: Mapping[str, torch.Tensor], seen: Seen) -> torch.Tensor:
    """Sum over prompts of -1 / C(K, 2) * sum over its pairs of log sigmoid(r(x, y_w) - r(x, y_l)): eq. 1 of the paper.

    batch: tokens int64 [N] packed with cu_seqlens int32 [S + 1]; ranks int64 [S], 1 = best, ties dropped;
    group_offsets int64 [P + 1], where the answers of each prompt begin. seen: counts the pairs. Returns f32 [].
    """
    cu_seqlens = batch["cu_seqlens"]
    scores = scores_at_last(model(batch["tokens"], cu_seqlens=cu_seqlens), cu_seqlens)
    ranked = ranking_loss(scores, batch["ranks"], batch["group_offsets"])
    seen.pairs += int(ranked.num_pairs)
    seen.correct += float(ranked.num_correct)
    return ranked.loss


def judged(found: RewardAccuracy) -> dict[str, float]:
    """Accuracy on comparisons as metrics, over all pairs and by the number of answers."""
    metrics = {
        "eval_accuracy": found.overall.accuracy, "eval_accuracy_ci95": found.overall.half_width,
        "eval_margin": found.mean_margin, "eval_mean_score": found.mean_score,
        "eval_pairs": float(found.overall.pairs), "eval_loss": found.loss,
        "eval_log_loss": found.calibration.log_loss, "eval_calibration_error": found.calibration.error,
    }
    return metrics | {f"eval_accuracy_k{k}": part.accuracy for k, part in found.by_k.items()}


def centre_scores(model: ScalarModel, demonstrations: Sequence[Sequence[int]], batch_size: int) -> float:
    """Shift the model's scores so that these sequences score 0 on average; return the shift.

    The shift changes no comparison; it fixes the scale that PPO's penalties are measured against.
    Raises TrainingError when the mean is not 0 afterwards.
    """
    before = score_sequences(model, demonstrations, batch_size=batch_size).double()
    model.bias_shift -= before.mean().to(model.bias_shift)
    after = score_sequences(model, demonstrations, batch_size=batch_size).double()
    size = max(1.0, float(before.abs().max()))
    if not abs(float(after.mean())) <= ZERO_MEAN * size:
        raise TrainingError(
            f"reward: demonstrations must score 0 on average after the shift, got {float(after.mean()):.3g} "
            f"(before: {float(before.mean()):.3g}); train in fp32 or bf16, or lower the learning rate."
        )
    return -float(before.mean())
