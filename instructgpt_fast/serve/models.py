"""The models of a server: loaded once, found by name in a table; a name from a request is never opened as a path."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.config import nearest
from instructgpt_fast.device import choose_device, torch_dtype
from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.generate import Engine
from instructgpt_fast.model import GPT
from instructgpt_fast.serve.errors import ApiError
from instructgpt_fast.serve.options import ServeConfig
from instructgpt_fast.tokenizer import Tokenizer

OWNER = "instructgpt_fast"


@dataclass
class Served:
    """A model under its name, with the engine that only the worker's thread may touch once it runs.

    created: when it was loaded, in seconds since 1970. failure: why it serves no more; None while it does.
    """

    name: str
    loaded: Loaded
    engine: Engine
    created: int = field(default_factory=lambda: int(time.time()))
    failure: str | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        return self.loaded.tokenizer

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return self.loaded.model.config.n_positions

    def described(self) -> dict[str, Any]:
        """The object of /v1/models, with the context and the way prompts are encoded beside OpenAI's fields."""
        return {
            "id": self.name, "object": "model", "created": self.created, "owned_by": OWNER,
            "max_model_len": self.context, "prompt_format": self.loaded.prompt_format,
        }


def load_models(config: ServeConfig) -> dict[str, Served]:
    """Load every checkpoint and give each its engine; name -> model, in the order of the options.

    Raises CheckpointError for one that is damaged or holds no language model, BackendError for the device.
    """
    device, _ = choose_device(config.device)
    served = {}
    for name, checkpoint in zip(config.model_names(), config.checkpoint, strict=True):
        loaded = load_model(checkpoint, dtype=torch_dtype(config.dtype), device=device)
        served[name] = with_engine(name, loaded, config)
    return served


def with_engine(name: str, loaded: Loaded, config: ServeConfig) -> Served:
    """A loaded model and an engine for it. Raises CheckpointError unless it is a language model."""
    if not isinstance(loaded.model, GPT):
        raise CheckpointError(
            f"serve: {loaded.path} must hold a language model, got the scalar model of stage {loaded.stage!r}; "
            "use the checkpoint of a pretrain, sft or ppo run."
        )
    engine = Engine(
        loaded.model, eos_id=loaded.tokenizer.eos_id, tokenizer=loaded.tokenizer, max_rows=config.max_rows,
        cache_tokens=config.cache_tokens,
    )
    return Served(name, loaded, engine)


def find(models: dict[str, Served], name: str) -> Served:
    """The model of that name. Raises ApiError 404 naming those that are served."""
    if name not in models:
        shown = name if len(name) <= 100 else name[:100] + "..."
        raise ApiError(
            404, f"No model is called {shown!r}{nearest(shown, models) or '.'} There are: {', '.join(models)}.",
            param="model", code="model_not_found",
        )
    return models[name]


def listed(models: Sequence[Served]) -> dict[str, Any]:
    """The answer of GET /v1/models."""
    return {"object": "list", "data": [model.described() for model in models]}
