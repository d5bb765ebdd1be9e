"""Pretraining on text as GPT-3's: its options first, then its loop (Brown et al. 2020, arXiv:2005.14165, appendix B).

Documents are packed to full sequences with EOS between them and no mask between documents. Defaults carry a mark:
[P] printed in the paper, [O] our own choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from instructgpt_fast.config import options_class
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.model import GPT, model_config
from instructgpt_fast.optim import gpt3_batch_tokens, gpt3_learning_rate
from instructgpt_fast.train.inputs import load_gpt
from instructgpt_fast.train.language_model import evaluate_lm, lm_loss
from instructgpt_fast.train.loop import Run, Training, TrainResult, check_space, open_run, training_bytes
from instructgpt_fast.train.options import OptimizerOptions
from instructgpt_fast.train.presets import PRETRAIN_PRESETS
from instructgpt_fast.train.pretrain_data import Corpus, open_corpus, open_evaluation
from instructgpt_fast.train.step import MicroBatch, Updater

__all__ = ["PretrainConfig", "run_pretrain"]

LONGEST_RUN = 50_000_000  # steps: beyond this a schedule is a slip of the pen


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
    """Tokens of one optimizer step, in whole sequences; None takes per_device_train_batch_size *
    gradient_accumulation_steps sequences. Passes hold per_device_train_batch_size sequences."""
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
        model, corpus = _model_and_corpus(run, config)
        model.activation_checkpointing = config.gradient_checkpointing
        length = model.config.n_positions
        plan = Plan.of(config, length, corpus.sequences(length))
        held_out = None if config.eval_data is None else open_evaluation(run, config.eval_data, corpus.tokenizer)
        updater = Updater.of(run, model, config)
        training = Training(
            model, corpus.tokenizer, "raw", {"model": model}, {"model": updater.optimizer},
            {"tokens": 0, "sequences": 0, "metrics": {}},
        )
        check_space(run.directory, training_bytes(training.modules))
        first = run.resume(training)
        updater.restore(training.counters)
        counters = training.counters
        model.train()
        for step in run.steps(first, plan.steps):
            rows = plan.sequences(counters["tokens"])
            rate = plan.learning_rate(counters["tokens"] + rows * length)
            windows = corpus.windows(counters["sequences"], rows, length)
            outcome = updater.step(step, rate, micro_batches(model, windows.to(run.device), config))
            counters.update(updater.state(), tokens=counters["tokens"] + rows * length, sequences=counters["sequences"] + rows)
            run.worked(rows * length)
            run.log(step, {
                "loss": outcome.loss, "grad_norm": outcome.grad_norm, "learning_rate": rate,
                "num_tokens": counters["tokens"], "epoch": counters["sequences"] / corpus.sequences(length),
            }, plan.steps)
            if held_out is not None and run.due(config.eval_steps, step, plan.steps):
                scores = evaluate_lm(model, held_out.batches(length, config.per_device_eval_batch_size, run.device))
                counters["metrics"] = {**scores, "loss": outcome.loss}
                run.record(step, scores)
            elif step == plan.steps:
                counters["metrics"] = {"loss": outcome.loss}
            run.save_if_due(step, plan.steps, training)
        return run.finish(plan.steps, training, counters["metrics"])


def micro_batches(model: GPT, windows: Tensor, config: PretrainConfig) -> list[MicroBatch]:
    """Cut windows, int64 [E, T], into micro-batches whose losses sum to the mean over all predicted tokens."""
    weight = 1.0 / (windows.shape[0] * (windows.shape[1] - 1))
    return [
        MicroBatch({"tokens": part}, lambda tensors: lm_loss(model, tensors), weight)
        for part in windows.split(config.per_device_train_batch_size)
    ]
