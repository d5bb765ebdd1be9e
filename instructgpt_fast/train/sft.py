"""Supervised fine-tuning on demonstrations: its options first, then its loop (Ouyang et al. 2022, appendix C.1, C.3).

Defaults carry a mark: [P] printed in the paper (arXiv:2203.02155), [O] our own choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from instructgpt_fast.checkpoint import Loaded, require_same_vocabulary
from instructgpt_fast.config import options_class
from instructgpt_fast.data import pack_encoded
from instructgpt_fast.evaluate import read_demonstrations
from instructgpt_fast.generate import SamplingConfig
from instructgpt_fast.model import GPT
from instructgpt_fast.optim import cosine_to_fraction
from instructgpt_fast.tokenizer import Encoded, Tokenizer
from instructgpt_fast.train.examples import ExampleStream, limits_of, packed_batches
from instructgpt_fast.train.inputs import load_gpt, load_scalar
from instructgpt_fast.train.language_model import count_targets, evaluate_lm, lm_flops, lm_loss
from instructgpt_fast.train.loop import Run, Training, TrainResult, check_space, open_run, training_bytes
from instructgpt_fast.train.options import ExampleOptions
from instructgpt_fast.train.presets import SFT_PRESETS
from instructgpt_fast.train.samples import Answers
from instructgpt_fast.train.selection import Judge, Selector
from instructgpt_fast.train.step import MicroBatch, Updater
from instructgpt_fast.train.text import Windows, open_text

__all__ = ["SftConfig", "run_sft"]


@options_class(SFT_PRESETS)
class SftConfig(ExampleOptions):
    """Options of supervised fine-tuning: model, data, mix, choice of the checkpoint."""

    stage: ClassVar[str] = "sft"

    init: str
    """Checkpoint (or run directory) to start from."""
    data: str
    """jsonl of demonstrations: {"prompt", "response"} or {"messages"}."""
    eval_data: str | None = None
    """jsonl of demonstrations to evaluate on."""
    prompt_format: Literal["dialogue", "raw"] = "dialogue"
    """How a prompt becomes tokens: with role tokens, or plain text followed by the response [O]."""
    residual_dropout: float = 0.2
    """Dropout on the residual branches [P]."""
    num_train_epochs: float = 16.0
    """Passes over the demonstrations, when max_steps is not given [P]."""
    learning_rate: float = 9.65e-6
    """Peak learning rate [P, 1.3B and 6B]."""
    gradient_accumulation_steps: int = 4
    """Passes whose gradients are summed before a step: 4 * 8 examples are the batch of 32 [P, 1.3B and 6B]."""
    pretrain_data: str | None = None
    """Text, jsonl or token shards mixed in, as for the policy that PPO starts from."""
    pretrain_mix: float = 0.0
    """Weight of the pretraining loss and share of sequences that are pretraining windows: 0.1 for PPO's start [P];
    the loss is (1 - mix) * mean over response tokens + mix * mean over pretraining tokens [O]."""
    pretrain_length: int | None = None
    """Tokens of a pretraining window; None is the model's context [O]."""
    select_by_reward: str | None = None
    """Reward model that chooses the checkpoint by its mean score of sampled answers to the evaluation prompts [P];
    None chooses by evaluation loss."""
    selection_prompts: int = 64
    """Evaluation prompts that are answered for that choice, the first ones [O]."""
    selection_max_new_tokens: int = 128
    """Longest of those answers in tokens [O]."""
    selection_temperature: float = 1.0
    """Sampling temperature of those answers; 0 is greedy [O]."""

    def check(self) -> None:
        """Refuse a mix without data and a choice without prompts."""
        super().check()
        mix = self.pretrain_mix
        self.require("pretrain_mix must lie in [0, 1)", 0 <= mix < 1, pretrain_mix=mix)
        self.require(
            "pretrain_mix above 0 needs pretrain_data, and pretrain_data a mix above 0",
            (mix > 0) == (self.pretrain_data is not None), pretrain_mix=mix, pretrain_data=self.pretrain_data,
        )
        dropout = self.residual_dropout
        self.require("residual_dropout must lie in [0, 1)", 0 <= dropout < 1, residual_dropout=dropout)
        self.require(
            "select_by_reward needs eval_data", self.select_by_reward is None or self.eval_data is not None,
            select_by_reward=self.select_by_reward, eval_data=self.eval_data,
        )
        for name in ("selection_prompts", "selection_max_new_tokens"):
            value = getattr(self, name)
            self.require(f"{name} must be at least 1", value >= 1, **{name: value})


def run_sft(config: SftConfig) -> TrainResult:
    """Fine-tune a language model on demonstrations; see `instructgpt_fast.train`."""
    with open_run("sft", config) as run:
        model, start = load_gpt(run, config.init, residual_dropout=config.residual_dropout)
        tokenizer = start.tokenizer
        model.activation_checkpointing = config.gradient_checkpointing
        limits = limits_of(config, model.config.n_positions)
        form, bad = config.prompt_format, config.on_bad_line
        data = read_demonstrations(config.data, tokenizer, form, limits, bad, run.say)
        held_out = None
        if config.eval_data is not None:
            held_out = read_demonstrations(config.eval_data, tokenizer, form, limits, bad, run.say)
        mix = PretrainMix.of(run, config, model, tokenizer)
        updater = Updater.of(run, model, config)
        training = Training(model, tokenizer, form, {"model": model}, {"model": updater.optimizer})
        selector = Selector(run, training, _judge(run, config, start, held_out))
        check_space(run.directory, training_bytes(training.modules))
        stream = ExampleStream(len(data), config)
        first = run.resume(training)
        updater.restore(training.counters)
        stream.restore(training.counters)
        selector.restore()
        answers = Answers(run, training, prompts_of((held_out or data)[:config.record_samples]))
        if first == 0:
            answers.record(0)
        model.train()
        for step in run.steps(first, stream.steps):
            rate = cosine_to_fraction(
                step - 1, stream.steps, config.learning_rate,
                floor=config.min_learning_rate_ratio, warmup=config.warmup_steps,
            )
            chosen = stream.batch(step)
            batch = micro_batches(model, [data[i] for i in chosen], config, run) + mix.micro_batches(model, step)
            outcome = updater.step(step, rate, batch, {"examples": chosen, "data": config.data})
            training.counters.update(updater.state() | stream.state(step))
            run.worked(
                sum(part.tensors["tokens"].numel() for part in batch),
                sum(lm_flops(model.config, part.tensors) for part in batch),
            )
            metrics = {"loss": outcome.loss, "grad_norm": outcome.grad_norm}
            run.log(
                step, {**metrics, **updater.metrics(), "learning_rate": rate, "epoch": stream.epoch(step)},
                stream.steps,
            )
            training.counters["metrics"] = {**training.counters.get("metrics", {}), **metrics}
            if held_out is not None and run.due(config.eval_steps, step, stream.steps):
                batches = packed_batches(held_out, config.per_device_eval_batch_size, run.device)
                run.record(step, selector.judge(step, evaluate_lm(model, batches)))
            if step == stream.steps:
                answers.record(step)
            if run.save_if_due(step, stream.steps, training):
                selector.prune()
        return selector.finish(stream.steps)


def micro_batches(model: GPT, examples: Sequence[Encoded], config: SftConfig, run: Run) -> list[MicroBatch]:
    """Cut a batch of examples into packed micro-batches whose losses sum to (1 - mix) * the mean over the batch."""
    size = config.per_device_train_batch_size
    parts = [pack_encoded(examples[i:i + size], run.device) for i in range(0, len(examples), size)]
    count = sum(count_targets(part) for part in parts)
    weight = (1.0 - config.pretrain_mix) / count
    return [MicroBatch(part, lambda tensors: lm_loss(model, tensors), weight) for part in parts]


@dataclass(frozen=True)
class PretrainMix:
    """Windows of pretraining text that join each batch of demonstrations; none when `rows` is 0."""

    windows: Windows | None
    rows: int
    share: float
    size: int
    device: torch.device

    @classmethod
    def of(cls, run: Run, config: SftConfig, model: GPT, tokenizer: Tokenizer) -> PretrainMix:
        """Open the text; a share of `pretrain_mix` of a batch's sequences are windows, at least one."""
        windows, rows = None, 0
        if config.pretrain_data is not None:
            length = config.pretrain_length or model.config.n_positions
            config.require(f"pretrain_length must be at most the model's context of {model.config.n_positions} tokens",
                           length <= model.config.n_positions, pretrain_length=length)
            shards = open_text(run, config.pretrain_data, tokenizer, name="pretrain")
            windows = Windows(shards, length, config.seed)
            rows = max(1, round(config.batch_size * config.pretrain_mix / (1.0 - config.pretrain_mix)))
        return cls(windows, rows, config.pretrain_mix, config.per_device_train_batch_size, run.device)

    def micro_batches(self, model: GPT, step: int) -> list[MicroBatch]:
        """The windows of a step as micro-batches whose losses sum to mix * the mean over their predicted tokens."""
        if self.windows is None:
            return []
        rows = self.windows.batch((step - 1) * self.rows, self.rows).to(self.device)
        weight = self.share / (rows.shape[0] * (rows.shape[1] - 1))
        return [
            MicroBatch({"tokens": part}, lambda tensors: lm_loss(model, tensors), weight)
            for part in rows.split(self.size)
        ]


def prompts_of(examples: Sequence[Encoded]) -> list[list[int]]:
    """What stands before the first counted token of each example."""
    return [example.tokens[:example.loss_mask.index(True)] for example in examples]


def _judge(run: Run, config: SftConfig, start: Loaded, held_out: Sequence[Encoded] | None) -> Judge | None:
    if config.select_by_reward is None or held_out is None:
        return None
    reward_model, loaded = load_scalar(run, config.select_by_reward)
    require_same_vocabulary(start, loaded)
    room = min(start.model.config.n_positions, reward_model.config.n_positions)
    prompts = prompts_of(held_out[:config.selection_prompts])
    longest = max(map(len, prompts))
    config.require(
        f"selection_max_new_tokens must leave the answer room in {room} tokens beside the longest prompt of {longest}",
        longest + config.selection_max_new_tokens <= room, selection_max_new_tokens=config.selection_max_new_tokens,
    )
    sampling = SamplingConfig(
        max_new_tokens=config.selection_max_new_tokens, temperature=config.selection_temperature, seed=config.seed,
    )
    return Judge(reward_model, prompts, sampling, config.per_device_eval_batch_size)
