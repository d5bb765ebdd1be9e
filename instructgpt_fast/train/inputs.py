"""Models that a stage starts from: loaded, checked for kind and vocabulary, put on the run's device."""

from __future__ import annotations

import dataclasses

from instructgpt_fast import checkpoint
from instructgpt_fast.checkpoint import Loaded
from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.model import GPT, ScalarModel
from instructgpt_fast.train.loop import Run


def load_start(run: Run, path: str) -> Loaded:
    """Load any model of this package in the run's dtype onto its device. Raises CheckpointError."""
    return checkpoint.load_model(path, dtype=run.dtype, device=run.device)


def load_gpt(run: Run, path: str, *, residual_dropout: float = 0.0) -> tuple[GPT, Loaded]:
    """Load a language model, with this residual dropout, and what came with it.

    Raises CheckpointError when the checkpoint holds a reward or value model.
    """
    start = load_start(run, path)
    if not isinstance(start.model, GPT):
        raise CheckpointError(
            f"{run.stage}: {start.path} must hold a language model, got a reward or value model; "
            "name a checkpoint of pretraining, SFT or PPO."
        )
    return with_dropout(start.model, residual_dropout), start


def load_scalar(run: Run, path: str) -> tuple[ScalarModel, Loaded]:
    """Load a reward or value model, and what came with it.

    Raises CheckpointError when the checkpoint holds a language model.
    """
    start = load_start(run, path)
    if not isinstance(start.model, ScalarModel):
        raise CheckpointError(
            f"{run.stage}: {start.path} must hold a reward model, got a language model; train one with the "
            "stage reward and name its checkpoint."
        )
    return start.model, start


def with_dropout(model: GPT, residual_dropout: float) -> GPT:
    """The same weights in a model that drops out its residual branches with this probability while training."""
    if model.config.residual_dropout == residual_dropout:
        return model
    config = dataclasses.replace(model.config, residual_dropout=residual_dropout)
    weight = model.wte.weight
    # Built on the meta device: fresh weights would be drawn only to be replaced, and would move the random state.
    made = GPT(config, device="meta", dtype=weight.dtype)
    made.load_state_dict(model.state_dict(), assign=True)
    return made
