"""Data for every stage: kinds of examples, JSON lines, token shards, packing, and a resumable shuffled order."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from instructgpt_fast.data.encode import (
    EncodedComparison,
    Fitting,
    Limits,
    encode_comparisons,
    encode_demonstrations,
    encode_prompts,
)
from instructgpt_fast.data.examples import Comparison, Demonstration, Prompt, PromptText, Text
from instructgpt_fast.data.jsonl import Examples, OnBadLine, read_jsonl
from instructgpt_fast.data.order import Order
from instructgpt_fast.data.prepare import open_tokens, prepare, prepare_texts
from instructgpt_fast.data.shards import TokenShards, is_shard_folder
from instructgpt_fast.data.texts import SkippedLines, documents, pieces, text_files

if TYPE_CHECKING:
    from instructgpt_fast.data.packing import pack_bins, pack_encoded
    from instructgpt_fast.data.windows import TokenWindows

# What needs torch comes on first use: the processes of data hygiene, which need none of it, start the sooner.
_WITH_TORCH = {
    "TokenWindows": "instructgpt_fast.data.windows",
    "pack_bins": "instructgpt_fast.data.packing",
    "pack_encoded": "instructgpt_fast.data.packing",
}

__all__ = [
    "Comparison",
    "Demonstration",
    "EncodedComparison",
    "Examples",
    "Fitting",
    "Limits",
    "OnBadLine",
    "Order",
    "Prompt",
    "PromptText",
    "SkippedLines",
    "Text",
    "TokenShards",
    "TokenWindows",
    "documents",
    "encode_comparisons",
    "encode_demonstrations",
    "encode_prompts",
    "is_shard_folder",
    "open_tokens",
    "pack_bins",
    "pack_encoded",
    "pieces",
    "prepare",
    "prepare_texts",
    "read_jsonl",
    "text_files",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module 'instructgpt_fast.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WITH_TORCH[name]), name)
    globals()[name] = value
    return value
