"""What the contenders of the Hugging Face family share: models of one size, arguments, a clock as a callback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import GPT2Config, PreTrainedTokenizerFast, TrainerCallback

from benchmarks.stages.clock import StepClock
from benchmarks.stages.work import Work


class ClockCallback(TrainerCallback):
    """Ends a step of the clock where the trainer ends an optimizer step.

    tokens: real tokens of the step with this number, from 0; asked once the step is done.
    """

    def __init__(self, clock: StepClock, tokens: Callable[[int], int]) -> None:
        self.clock, self.tokens = clock, tokens

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.clock.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.step_done(self.tokens(len(self.clock.seconds)))


def tokenizer(work: Work) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_file=str(work.tokenizer), eos_token="<|endoftext|>", pad_token="<|pad|>", padding_side="left"
    )


def config(work: Work, **more: Any) -> GPT2Config:
    size = work.size
    words = tokenizer(work)
    return GPT2Config(
        vocab_size=size.vocab, n_positions=size.positions, n_embd=size.width, n_layer=size.layers, n_head=size.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=words.eos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, **more,
    )


def shared_arguments(work: Work, output: Path, batch: int, passes: int = 1) -> dict[str, Any]:
    """Float32 on the CPU without activation checkpointing, batches in the order of the data, nothing saved."""
    return {
        "output_dir": str(output), "per_device_train_batch_size": batch, "gradient_accumulation_steps": passes,
        "save_strategy": "no", "report_to": "none", "use_cpu": True, "learning_rate": 1e-5, "bf16": False,
        "gradient_checkpointing": False, "disable_tqdm": True, "train_sampling_strategy": "sequential",
        "logging_steps": 10, "seed": work.seed, "dataloader_pin_memory": False,
    }
