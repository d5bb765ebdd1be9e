"""The command `serve`."""

from __future__ import annotations

from instructgpt_fast.serve.options import ServeConfig

__all__ = ["ServeConfig", "serve_checkpoints"]


def serve_checkpoints(options: ServeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from instructgpt_fast.serve.start import require_web_packages

    require_web_packages()
    from instructgpt_fast.serve.run import run

    run(options)
