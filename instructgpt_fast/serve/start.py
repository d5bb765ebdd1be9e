"""`serve`: checks the options and the web packages, then runs the server until it is told to stop."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.serve.options import ServeConfig

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def serve(checkpoint: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], **options: Any) -> None:
    """Serve one checkpoint or several over HTTP until SIGTERM or Ctrl-C.

    checkpoint: a checkpoint or run directory of a language model, or a list of them. options: those of ServeConfig.
    Raises ConfigError for bad options, for an address that cannot be listened on and where the web packages are
    missing; CheckpointError for a checkpoint that is damaged or holds no language model; BackendError for a device
    that cannot be used.
    """
    several = [checkpoint] if isinstance(checkpoint, (str, os.PathLike)) else list(checkpoint)
    config = ServeConfig(checkpoint=tuple(os.fspath(path) for path in several), **options)
    require_web_packages()
    from instructgpt_fast.serve.run import run

    run(config)


def require_web_packages() -> None:
    """Raise ConfigError where a package of the extra `[serve]` is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serve: needs the packages {', '.join(_NEEDED)}, got no {', '.join(missing)}; "
            "run: pip install 'instructgpt_fast[serve]'"
        )
