"""The commands `label`, `label export` and `label agreement`."""

from __future__ import annotations

import json
import sys

from instructgpt_fast.config import Options, options_class
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.label.options import LabelConfig

__all__ = ["LabelAgreement", "LabelConfig", "LabelExport", "export_labels", "measure_agreement", "serve_labels"]


def serve_labels(options: LabelConfig) -> None:
    """Serve the labelling page until SIGTERM or Ctrl-C."""
    from instructgpt_fast.label import label

    label(options)


@options_class()
class LabelExport(Options):
    """A database of labels, and where the files for training go."""

    database: str
    """SQLite file of the labels; a server may be running on it."""
    output_dir: str
    """Folder for demonstrations.jsonl and comparisons.jsonl."""


def export_labels(options: LabelExport) -> None:
    """Write the finished labels."""
    from instructgpt_fast.label import export

    sys.stdout.write(f"{export(options.database, options.output_dir)}\n")


@options_class()
class LabelAgreement(Options):
    """A database of labels."""

    database: str
    """SQLite file of the labels; a server may be running on it."""
    output: str | None = None
    """File for the numbers as JSON."""


def measure_agreement(options: LabelAgreement) -> None:
    """Print how far the labelers agree."""
    from instructgpt_fast.files import atomic_write
    from instructgpt_fast.label import agreement

    found = agreement(options.database)
    if options.output is not None:
        atomic_write(options.output, json.dumps(found.described(), indent=1) + "\n", error=ConfigError)
    sys.stdout.write(f"{found}\n")
