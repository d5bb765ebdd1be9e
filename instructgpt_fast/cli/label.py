"""The commands `label`, `label export` and `label agreement`."""

from __future__ import annotations

from instructgpt_fast.label.options import LabelConfig

__all__ = ["LabelConfig", "serve_labels"]


def serve_labels(options: LabelConfig) -> None:
    """Serve the labelling page until SIGTERM or Ctrl-C."""
    from instructgpt_fast.label import label

    label(options)
