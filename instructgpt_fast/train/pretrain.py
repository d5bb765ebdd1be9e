"""Pretraining on text as GPT-3's: its options first, then its loop (Brown et al. 2020, arXiv:2005.14165, appendix B).

Documents are packed to full sequences with EOS between them and no mask between documents. Defaults carry a mark:
[P] printed in the paper, [O] our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from instructgpt_fast.config import options_class
from instructgpt_fast.data import TokenShards
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate import perplexity
from instructgpt_fast.model import GPT, model_config
from instructgpt_fast.optim import gpt3_batch_tokens, gpt3_learning_rate
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train.inputs import load_gpt
from instructgpt_fast.train.language_model import lm_flops, lm_loss
from instructgpt_fast.train.loop import Run, Training, TrainResult, check_space, open_run, training_bytes
from instructgpt_fast.train.options import OptimizerOptions
from instructgpt_fast.train.presets import PRETRAIN_PRESETS
from instructgpt_fast.train.samples import Answers
from instructgpt_fast.train.step import MicroBatch, Updater
from instructgpt_fast.train.text import Windows, open_text, open_tokenizer

__all__ = ["PretrainConfig", "run_pretrain"]

LONGEST_RUN = 50_000_000  # steps: beyond this a schedule is a slip of the pen
OPENING = 32  # tokens of the text that recorded samples go on from [O]


@options_class(PRETRAIN_PRESETS)
class PretrainConfig(OptimizerOptions):
    """Options of pretraining: model, text, tokenizer, batch and learning rate in tokens."""

    stage: ClassVar[str] = "pretrain"

    data: str
    """Text to learn: a .txt or .jsonl file, a folder of them, or a folder of token shards."""
    eval_data: str | None = None
    """Text to evaluate on, in any of those forms."""
    model: str = "gpt2-124m"
    """Named shape of the model: gpt2-124m, gpt3-1.3b, tiny, ..."""
    init: str | None = None
    """Checkpoint to continue from in place of fresh weights; it brings its own shape and tokenizer."""
    tokenizer: str | None = None
    """tokenizer.json (or its folder) to use; None trains one on the data."""
    vocab_size: int = 50257
    """Size of the tokenizer that is trained when none is given."""
    n_positions: int | None = None
    """Context in tokens; None keeps the named shape's. This and the next four change the named shape."""
    n_layer: int | None = None
    """Transformer layers."""
    n_head: int | None = None
    """Attention heads a layer."""
    d_model: int | None = None
    """Width."""
    band_width: int | None = None
    """Tokens that every second layer looks back."""
    residual_dropout: float = 0.0
    """Dropout on the residual branches [O]."""
    learning_rate: float = 6e-4
    """Peak learning rate [P, 125M]."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices [P]."""
    train_batch_tokens: int | None = None
    """Tokens of one optimizer step, in whole sequences and as many passes of per_device_train_batch_size as it takes;
    given in place of gradient_accumulation_steps."""
    batch_ramp_start: int = 32_000
    """Tokens of the first batch of a ramp [P]."""
    batch_ramp_tokens: int = 0
    """Raise the batch linearly over so many tokens [P: 4 to 12 billion]; 0 has no ramp."""
    warmup_tokens: int | None = None
    """Linear warm-up of the learning rate in tokens [P: 375 million]; None takes 2 % of the run [O]."""
    lr_decay_tokens: int | None = None
    """The cosine reaches its end at so many tokens [P: 260 billion]; None takes the whole run [O]."""
    min_learning_rate_ratio: float = 0.1
    """The cosine ends at this share of the peak [P]."""
    on_bad_line: Literal["error", "skip"] = "error"
    """A malformed line of a jsonl file stops the run with its place, or is left out and counted."""
    train_tokens: int | None = None
    """Length of the run in tokens; takes the place of num_train_epochs. max_steps takes the place of both."""

    def check(self) -> None:
        """Refuse numbers of tokens that cannot be."""
        super().check()
        for name, least in (
            ("train_batch_tokens", 1), ("train_tokens", 1), ("lr_decay_tokens", 1), ("warmup_tokens", 0),
        ):
            value = getattr(self, name)
            self.require(f"{name} must be at least {least} or none", value is None or value >= least, **{name: value})
        self.check_one_batch("train_batch_tokens")
        ramp, start = self.batch_ramp_tokens, self.batch_ramp_start
        self.require("batch_ramp_tokens must be at least 0", ramp >= 0, batch_ramp_tokens=ramp)
        self.require("batch_ramp_start must be at least 1", start >= 1, batch_ramp_start=start)
        ratio = self.min_learning_rate_ratio
        self.require("min_learning_rate_ratio must lie in [0, 1]", 0 <= ratio <= 1, min_learning_rate_ratio=ratio)
        dropout = self.residual_dropout
        self.require("residual_dropout must lie in [0, 1)", 0 <= dropout < 1, residual_dropout=dropout)
        self.require(
            "init brings its own shape and tokenizer, so neither is given beside it",
            self.init is None or not (self.shape() or self.tokenizer), init=self.init, tokenizer=self.tokenizer,
            **self.shape(),
        )

    def shape(self) -> dict[str, int]:
        """The given changes to the named shape."""
        names = ("n_positions", "n_layer", "n_head", "d_model", "band_width")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class Plan:
    """How a run of pretraining unfolds: sequences of each step and its learning rate, all from tokens seen."""

    config: PretrainConfig
    length: int  # tokens of a sequence
    total_tokens: int
    steps: int

    @classmethod
    def of(cls, config: PretrainConfig, length: int, sequences: int) -> Plan:
        """Find the length of the run; `sequences` is how many one epoch holds."""
        wanted = config.train_tokens
        if wanted is None:
            wanted = round(config.num_train_epochs * sequences) * length
        steps = tokens = 0
        probe = cls(config, length, 0, 0)
        limit = config.max_steps
        while (steps < limit) if limit is not None else (tokens < wanted):
            tokens += probe.sequences(tokens) * length
            steps += 1
            if steps > LONGEST_RUN:
                raise ConfigError(
                    f"pretrain: a run must have at most {LONGEST_RUN} steps, got more for {wanted} tokens in batches "
                    f"of {probe.sequences(tokens) * length}; raise train_batch_tokens."
                )
        return cls(config, length, tokens, steps)

    def sequences(self, tokens: int) -> int:
        """Sequences of the step that begins after `tokens` tokens; at least one."""
        config = self.config
        full = config.train_batch_tokens
        if full is None:
            full = config.per_device_train_batch_size * config.gradient_accumulation_steps * self.length
        size: float = full
        if config.batch_ramp_tokens:
            size = gpt3_batch_tokens(tokens, full, ramp_tokens=config.batch_ramp_tokens, start=config.batch_ramp_start)
        return max(1, round(size / self.length))

    def learning_rate(self, tokens: int) -> float:
        """The rate of the step that ends after `tokens` tokens."""
        config = self.config
        warmup = config.warmup_tokens
        return gpt3_learning_rate(
            tokens, config.learning_rate, warmup_tokens=round(0.02 * self.total_tokens) if warmup is None else warmup,
            decay_tokens=config.lr_decay_tokens or self.total_tokens, floor=config.min_learning_rate_ratio,
        )


def run_pretrain(config: PretrainConfig) -> TrainResult:
    """Train a language model on text; see `instructgpt_fast.train`."""
    with open_run("pretrain", config) as run:
        model, tokenizer = _model_and_tokenizer(run, config)
        model.activation_checkpointing = config.gradient_checkpointing
        length = model.config.n_positions
        text = open_text(run, config.data, tokenizer, name="train", on_bad_line=config.on_bad_line)
        held_out = None
        if config.eval_data is not None:
            held_out = open_text(run, config.eval_data, tokenizer, name="eval", on_bad_line=config.on_bad_line)
        windows = Windows(text, length, config.seed)
        plan = Plan.of(config, length, len(windows))
        updater = Updater.of(run, model, config)
        training = Training(model, tokenizer, "raw", {"model": model}, {"model": updater.optimizer})
        counters = training.counters
        check_space(run.directory, training_bytes(training.modules))
        first = run.resume(training)
        updater.restore(counters)
        position = windows.restore(counters["windows"]) if first else 0
        answers = Answers(run, training, openings(held_out or text, length, config.record_samples))
        if first == 0:
            answers.record(0)
        model.train()
        for step in run.steps(first, plan.steps):
            rows = plan.sequences(position * length)
            rate = plan.learning_rate((position + rows) * length)
            batch = windows.batch(position, rows).to(run.device)
            outcome = updater.step(step, rate, micro_batches(model, batch, config))
            run.worked(rows * length, lm_flops(model.config, {"tokens": batch}))
            position += rows
            counters.update(updater.state(), windows=windows.state(position))
            metrics = {"loss": outcome.loss, "grad_norm": outcome.grad_norm}
            run.log(step, {
                **metrics, **updater.metrics(), "learning_rate": rate, "num_tokens": position * length,
                "epoch": position / len(windows),
            }, plan.steps)
            counters["metrics"] = {**counters.get("metrics", {}), **metrics}
            if held_out is not None and run.due(config.eval_steps, step, plan.steps):
                scores = evaluate_text(model, tokenizer, held_out, config.per_device_eval_batch_size)
                counters["metrics"].update(scores)
                run.record(step, scores)
            if step == plan.steps:
                answers.record(step)
            run.save_if_due(step, plan.steps, training)
        return run.finish(plan.steps, training, counters["metrics"])


def _model_and_tokenizer(run: Run, config: PretrainConfig) -> tuple[GPT, Tokenizer]:
    if config.init is not None:
        model, start = load_gpt(run, config.init, residual_dropout=config.residual_dropout)
        return model, start.tokenizer
    # An unknown name or a shape that cannot be is refused before minutes go into a tokenizer.
    model_config(config.model, vocab_size=config.vocab_size, **config.shape())
    tokenizer = open_tokenizer(
        run, config.data, config.tokenizer, config.vocab_size, on_bad_line=config.on_bad_line
    )
    shape = model_config(
        config.model, vocab_size=tokenizer.vocab_size, residual_dropout=config.residual_dropout, **config.shape()
    )
    model = GPT(shape, device=run.device, dtype=run.dtype)
    run.say(f"{config.model}: {shape.num_parameters:,} parameters")
    return model, tokenizer


def micro_batches(model: GPT, windows: Tensor, config: PretrainConfig) -> list[MicroBatch]:
    """Cut windows, int64 [E, T], into micro-batches whose losses sum to the mean over all predicted tokens."""
    weight = 1.0 / (windows.shape[0] * (windows.shape[1] - 1))
    return [
        MicroBatch({"tokens": part}, lambda tensors: lm_loss(model, tensors), weight)
        for part in windows.split(config.per_device_train_batch_size)
    ]


def openings(text: TokenShards, length: int, count: int) -> list[list[int]]:
    """The first tokens of the first windows of a text, for the model to go on from."""
    size = min(OPENING, length // 2)
    count = min(count, len(text) // length)
    return [[int(token) for token in text[row * length:row * length + size]] for row in range(count)] if size else []


def evaluate_text(model: GPT, tokenizer: Tokenizer, text: TokenShards, batch_size: int) -> dict[str, float]:
    """Loss, perplexity and bits per byte on held-out text, in windows of the whole context that barely overlap."""
    context = model.config.n_positions
    found = perplexity(model, tokenizer, text, context=context, stride=context - 1, batch_size=batch_size)
    return {"eval_loss": found.loss, "eval_perplexity": found.perplexity, "eval_bits_per_byte": found.bits_per_byte}
