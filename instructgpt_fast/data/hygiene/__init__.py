"""Data hygiene: from raw text or jsonl to train, valid and test splits without duplicates, private or leaked text."""

from instructgpt_fast.data.hygiene.options import PrepareConfig

__all__ = ["PrepareConfig"]
