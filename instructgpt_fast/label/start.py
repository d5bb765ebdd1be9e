"""`label`: checks the options and the web packages, then runs the labelling server until it is told to stop."""

from __future__ import annotations

import importlib.util
from typing import Any

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.label.options import LabelConfig

_NEEDED = ("fastapi", "uvicorn")


def label(config: LabelConfig | None = None, **options: Any) -> None:
    """Serve the labelling page until SIGTERM or Ctrl-C, while answers to the prompts are sampled beside it.

    config: the options as an object; or options: those of LabelConfig by name, for example
    label(checkpoints=["runs/sft"], prompts="prompts.jsonl", database="labels.sqlite").
    Raises ConfigError for bad options, an address or a database that is taken and missing web packages; DataError for
    prompts or a database that cannot be read; CheckpointError for a checkpoint that is damaged or no language model.
    """
    if config is not None and options:
        raise ConfigError(f"label: give a LabelConfig or options, not both, got {', '.join(options)} beside it.")
    resolved = LabelConfig(**options) if config is None else config
    require_web_packages()
    from instructgpt_fast.label.run import run

    run(resolved)


def require_web_packages() -> None:
    """Raise ConfigError where a package of the extra `[label]` is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"label: needs the packages {', '.join(_NEEDED)}, got no {', '.join(missing)}; "
            "run: pip install 'instructgpt_fast[label]'"
        )
