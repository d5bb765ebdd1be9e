"""Byte-level BPE: train, load and save; every text comes back unchanged; dialogues with their loss_mask."""

from instructgpt_fast.tokenizer.dialogue import ROLES, Encoded, Message, PromptFormat, as_messages, only_text
from instructgpt_fast.tokenizer.folder import TOKENIZER_FILES
from instructgpt_fast.tokenizer.stream import TextStream
from instructgpt_fast.tokenizer.tokenizer import EOS, PAD, Tokenizer

__all__ = [
    "EOS",
    "PAD",
    "ROLES",
    "TOKENIZER_FILES",
    "Encoded",
    "Message",
    "PromptFormat",
    "TextStream",
    "Tokenizer",
    "as_messages",
    "only_text",
]
