"""The optimizer and the schedules of its learning rate and batch size."""

from instructgpt_fast.optim.adamw import AdamW, StepReport
from instructgpt_fast.optim.schedule import (
    constant_with_warmup,
    cosine_to_fraction,
    gpt3_batch_tokens,
    gpt3_learning_rate,
)

__all__ = [
    "AdamW",
    "StepReport",
    "constant_with_warmup",
    "cosine_to_fraction",
    "gpt3_batch_tokens",
    "gpt3_learning_rate",
]
