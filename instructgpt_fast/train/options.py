"""The options that every training stage shares: where a run is kept, when it reports, and its optimizer."""

from __future__ import annotations

import dataclasses
from typing import Literal

from instructgpt_fast.config import Options, options_class

__all__ = ["ExampleOptions", "OptimizerOptions", "RunOptions"]


@options_class()
class RunOptions(Options):
    """Where a run is kept, what it runs on, and when it logs and saves."""

    output_dir: str
    """Directory of the run: checkpoints, metrics.jsonl and the resolved options (resolved.toml)."""
    preset: str | None = None
    """Named set of the paper's values for the options that are not given, for example "instructgpt-1.3b"."""
    seed: int = 0
    """Seed of everything random: initial weights, data order, dropout, sampling."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" takes the GPU when every op runs on it, and says what it took."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Type of weights and activations; with bf16 and fp16 the optimizer keeps float32 master copies."""
    logging_steps: int = 10
    """Write metrics every so many steps."""
    save_steps: int = 200
    """Save a checkpoint every so many steps, and always after the last one."""
    save_total_limit: int | None = 2
    """Keep at most so many checkpoints, the newest ones; none keeps all."""
    report_to: Literal["none", "tensorboard"] = "none"
    """Write metrics to TensorBoard too; metrics.jsonl is always written."""
    resume_from_checkpoint: str | None = None
    """"latest" continues from the newest checkpoint in output_dir (or starts when there is none); or a path."""
    overwrite_output_dir: bool = False
    """Delete the checkpoints and metrics of an earlier run in output_dir first."""
    progress: bool = True
    """Show progress with rate and time left."""
    diagnose: bool = True
    """Say during the run what its metrics show to be wrong, with the remedy, and keep it in findings.json."""
    record_samples: int = 4
    """Answers to so many fixed prompts are kept in samples.jsonl before and after training (PPO: at every save too); 0
    keeps none."""

    def check(self) -> None:
        """Refuse intervals below 1 and a resume that would delete what it resumes from."""
        for name in ("logging_steps", "save_steps"):
            value = getattr(self, name)
            self.require(f"{name} must be at least 1", value >= 1, **{name: value})
        if self.save_total_limit is not None:
            limit = self.save_total_limit
            self.require("save_total_limit must be at least 1", limit >= 1, save_total_limit=limit)
        self.require("output_dir must not be empty", self.output_dir != "", output_dir=self.output_dir)
        samples = self.record_samples
        self.require("record_samples must be at least 0", samples >= 0, record_samples=samples)
        self.require("seed must be at least 0", self.seed >= 0, seed=self.seed)
        self.require(
            "overwrite_output_dir deletes what resume_from_checkpoint needs, so give one of them",
            not (self.overwrite_output_dir and self.resume_from_checkpoint),
            resume_from_checkpoint=self.resume_from_checkpoint, overwrite_output_dir=self.overwrite_output_dir,
        )


@options_class()
class OptimizerOptions(RunOptions):
    """Batch, length of training and Adam of a stage that minimises one loss."""

    per_device_train_batch_size: int = 8
    """Batch elements in one forward and backward pass."""
    gradient_accumulation_steps: int = 1
    """Passes whose gradients are summed before a step; the update equals that of the one large batch."""
    per_device_eval_batch_size: int = 8
    """Batch elements in one forward pass of an evaluation."""
    num_train_epochs: float = 1.0
    """Passes over the data, when max_steps is not given."""
    max_steps: int | None = None
    """Optimizer steps; takes the place of num_train_epochs."""
    max_grad_norm: float | None = 1.0
    """Clip the gradient's L2 norm to this; none does not clip."""
    weight_decay: float = 0.0
    """Decoupled decay of matrices; vectors (biases, layer-norm weights) are never decayed."""
    adam_beta1: float = 0.9
    """Adam's decay of the first moment."""
    adam_beta2: float = 0.95
    """Adam's decay of the second moment."""
    adam_epsilon: float = 1e-8
    """Adam's epsilon."""
    adam_eps_placement: Literal["torch", "tensorflow"] = "torch"
    """Epsilon after the bias correction (torch) or before it (tensorflow, as in OpenAI's released code)."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block and compute the rest again in the backward pass: less memory, more time."""
    eval_steps: int = 200
    """Evaluate every so many steps when there is evaluation data, and always after the last step."""

    def check(self) -> None:
        """Refuse batches, lengths and Adam constants that cannot train."""
        super().check()
        for name in (
            "per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size", "eval_steps",
        ):
            value = getattr(self, name)
            self.require(f"{name} must be at least 1", value >= 1, **{name: value})
        if self.max_steps is not None:
            self.require("max_steps must be at least 1 or none", self.max_steps >= 1, max_steps=self.max_steps)
        epochs = self.num_train_epochs
        self.require("num_train_epochs must be above 0", epochs > 0, num_train_epochs=epochs)
        clip = self.max_grad_norm
        self.require("max_grad_norm must be above 0 or none", clip is None or clip > 0, max_grad_norm=clip)
        self.require("weight_decay must be at least 0", self.weight_decay >= 0, weight_decay=self.weight_decay)
        self.require("adam_epsilon must be above 0", self.adam_epsilon > 0, adam_epsilon=self.adam_epsilon)
        for name in ("adam_beta1", "adam_beta2"):
            value = getattr(self, name)
            self.require(f"{name} must lie in [0, 1)", 0 <= value < 1, **{name: value})
        self.check_rates()

    def check_one_batch(self, name: str) -> None:
        """Refuse two statements of the batch: option `name` says it whole, gradient_accumulation_steps in passes."""
        steps = self.gradient_accumulation_steps
        default = next(f.default for f in dataclasses.fields(self) if f.name == "gradient_accumulation_steps")
        self.require(
            f"{name} already says how many passes a step has, so gradient_accumulation_steps is left out",
            getattr(self, name) is None or steps == default,
            **{name: getattr(self, name), "gradient_accumulation_steps": steps},
        )

    def check_rates(self) -> None:
        """Refuse a learning rate that is not above 0 (a stage without one has nothing to check)."""
        rate = getattr(self, "learning_rate", 1.0)
        self.require("learning_rate must be above 0", rate > 0, learning_rate=rate)


@options_class()
class ExampleOptions(OptimizerOptions):
    """Batches of examples that have a prompt, and a learning rate that falls along a cosine."""

    train_batch_size: int | None = None
    """Examples of one optimizer step, in as many passes of per_device_train_batch_size as it takes; given in place of
    gradient_accumulation_steps."""
    min_learning_rate_ratio: float = 0.1
    """The cosine ends at this share of the peak."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    max_prompt_tokens: int | None = None
    """Longest prompt; None sets no limit of its own."""
    max_response_tokens: int | None = None
    """Longest response with its EOS; None sets no limit of its own."""
    max_tokens: int | None = None
    """Longest prompt and response together; None is the model's context."""
    on_long: Literal["error", "filter"] = "error"
    """An example over these lengths stops the run with its place, or is left out and counted."""
    on_bad_line: Literal["error", "skip"] = "error"
    """A malformed line of a jsonl file stops the run with its place, or is left out and counted."""

    @property
    def batch_size(self) -> int:
        """Examples of one optimizer step."""
        if self.train_batch_size is not None:
            return self.train_batch_size
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def check(self) -> None:
        """Refuse lengths below 2 tokens and schedules that cannot be followed."""
        super().check()
        for name, least in (
            ("train_batch_size", 1), ("max_prompt_tokens", 1), ("max_response_tokens", 1), ("max_tokens", 2),
        ):
            value = getattr(self, name)
            self.require(f"{name} must be at least {least} or none", value is None or value >= least, **{name: value})
        self.check_one_batch("train_batch_size")
        ratio = self.min_learning_rate_ratio
        self.require("min_learning_rate_ratio must lie in [0, 1]", 0 <= ratio <= 1, min_learning_rate_ratio=ratio)
        self.require("warmup_steps must be at least 0", self.warmup_steps >= 0, warmup_steps=self.warmup_steps)
