"""Data hygiene: from raw text or jsonl to train, valid and test splits without duplicates, private or leaked text."""

from instructgpt_fast.data.hygiene.options import PrepareConfig
from instructgpt_fast.data.hygiene.report import Report
from instructgpt_fast.data.hygiene.run import prepare

__all__ = ["PrepareConfig", "Report", "prepare"]
