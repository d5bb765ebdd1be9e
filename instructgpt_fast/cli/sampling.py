"""Options that every command which lets a model answer has: which model, and how its answers are drawn."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from instructgpt_fast.config import Options, options_class


@options_class()
class Sampling(Options):
    """How answers are drawn, and with what."""

    checkpoint: str
    """Checkpoint, run directory or Hugging Face folder of a language model."""
    max_new_tokens: int = 128
    """Longest answer in tokens."""
    temperature: float = 1.0
    """Below 1 sharpens, above 1 flattens, 0 always takes the likeliest token."""
    top_k: int = 0
    """Draw from so many likeliest tokens; 0 from all."""
    top_p: float = 1.0
    """Draw from the fewest likeliest tokens whose probability reaches this."""
    min_p: float = 0.0
    """Draw from tokens at least this share as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that were there before less likely."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer and are not shown; in a shell a new line is $'\\n'."""
    stop_ids: tuple[int, ...] = ()
    """Tokens that end an answer as the end-of-text token does."""
    seed: int = 0
    """Same seed, same answer."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Type of weights and activations."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" takes the GPU when every op runs on it."""

    def sampling(self) -> dict[str, Any]:
        """The options of the sampler, by the names that `SamplingConfig` has."""
        from instructgpt_fast.generate import SamplingConfig

        names = (field.name for field in dataclasses.fields(SamplingConfig))
        found = {name: getattr(self, name) for name in names if hasattr(self, name)}
        if not self.stop:
            del found["stop"]  # not given: examples may then say where an answer ends
        return found

    def load(self) -> Any:
        """Load the model."""
        from instructgpt_fast.checkpoint import load_model
        from instructgpt_fast.device import choose_device, torch_dtype

        device, _ = choose_device(self.device)
        return load_model(self.checkpoint, dtype=torch_dtype(self.dtype), device=device)
