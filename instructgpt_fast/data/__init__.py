"""Data for every stage: kinds of examples, JSON lines, token shards, packing, and a resumable shuffled order."""

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
from instructgpt_fast.data.packing import pack_bins, pack_encoded
from instructgpt_fast.data.prepare import open_tokens, prepare, prepare_texts
from instructgpt_fast.data.shards import TokenShards, is_shard_folder
from instructgpt_fast.data.texts import SkippedLines, documents, pieces, text_files
from instructgpt_fast.data.windows import TokenWindows

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
