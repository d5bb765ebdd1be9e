"""The commands `prepare`, from raw data to clean splits, and `prepare shards`, from clean text to tokens."""

from __future__ import annotations

import sys
from typing import Any, Literal

from instructgpt_fast.config import Options, options_class


def prepare_splits(options: Any) -> None:
    """Clean and split data, and print the counts."""
    from instructgpt_fast.data.hygiene import prepare

    report = prepare(options)
    sys.stdout.write(f"{report}\n{report.output_dir}\n")


@options_class()
class PrepareShards(Options):
    """Text, the tokenizer for it, and where the shards go."""

    data: str
    """A .txt or .jsonl file, or a folder of them."""
    tokenizer: str
    """tokenizer.json, or a folder or checkpoint that holds one."""
    output_dir: str
    """Folder for the token shards."""
    on_bad_line: Literal["error", "skip"] = "error"
    """A malformed line of a jsonl file stops with its place, or is left out and counted."""


def prepare_shards(options: PrepareShards) -> None:
    """Write token shards, documents joined by EOS."""
    from instructgpt_fast.data import prepare
    from instructgpt_fast.tokenizer import Tokenizer

    def tell(count: int) -> None:
        sys.stderr.write(f"{count:,} tokens so far\n")

    tokenizer = Tokenizer.load(options.tokenizer)
    shards = prepare(
        options.data, options.output_dir, tokenizer, on_bad_line=options.on_bad_line, on_progress=tell
    )
    tokenizer.save(options.output_dir)  # pretraining finds it beside the shards
    if shards.skipped_lines:
        sys.stderr.write(f"left out {shards.skipped_lines} lines that cannot be read\n")
    sys.stdout.write(f"{len(shards):,} tokens in {shards.documents:,} documents: {options.output_dir}\n")
