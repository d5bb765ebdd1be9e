"""The commands that are not training stages: tokenizer, evaluate, doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from instructgpt_fast.config import Options, options_class


@options_class()
class TokenizerTrain(Options):
    """Text to learn from, and where the tokenizer goes."""

    data: str
    """A .txt or .jsonl file, or a folder of them."""
    output: str
    """tokenizer.json to write, or a folder for it."""
    vocab_size: int = 50257
    """Tokens in all, the 256 bytes and the special tokens among them."""
    on_bad_line: Literal["error", "skip"] = "error"
    """A malformed line of a jsonl file stops with its place, or is left out and counted."""


def train_tokenizer(options: TokenizerTrain) -> None:
    """Train a tokenizer and write it."""
    from instructgpt_fast.data import SkippedLines, documents
    from instructgpt_fast.tokenizer import Tokenizer

    skipped = SkippedLines()
    texts = documents(options.data, on_bad_line=options.on_bad_line, skipped=skipped)
    tokenizer = Tokenizer.train(texts, options.vocab_size)
    target = Path(options.output)
    if target.suffix != ".json":
        target.mkdir(parents=True, exist_ok=True)
    path = tokenizer.save(target)
    if skipped:
        sys.stderr.write(f"left out {len(skipped)} lines that cannot be read, the first: {skipped[0]}\n")
    sys.stdout.write(f"{tokenizer.vocab_size} tokens: {path}\n")


@options_class()
class TokenizerInspect(Options):
    """A tokenizer, and a text for it."""

    tokenizer: str
    """tokenizer.json, or a folder or checkpoint that holds one."""
    text: str = "Explain the moon landing to a six year old."
    """The text to cut."""


def inspect_tokenizer(options: TokenizerInspect) -> None:
    """Print size, special tokens, and the pieces of a text."""
    from instructgpt_fast.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(options.tokenizer)
    tokens = tokenizer.encode(options.text)
    size = len(options.text.encode())
    out = sys.stdout.write
    out(f"vocabulary: {tokenizer.vocab_size} tokens, fingerprint {tokenizer.fingerprint[:16]}\n")
    out(f"EOS: {tokenizer.eos_token} = {tokenizer.eos_id}, PAD: {tokenizer.pad_token} = {tokenizer.pad_id}\n")
    out("roles: " + ", ".join(f"{role} = {number}" for role, number in tokenizer.role_ids.items()) + "\n")
    out(f"text: {size} bytes, {len(tokens)} tokens, {size / max(len(tokens), 1):.2f} bytes a token\n")
    for token in tokens:
        out(f"{token:>8}  {tokenizer.bytes_of(token).decode('utf-8', 'backslashreplace')!r}\n")


def evaluate_checkpoint(options: Any) -> None:
    """Print the table of results."""
    from instructgpt_fast.evaluate import alignment_tax, evaluate, win_rate

    if options.alignment_tax or options.win_rate:
        compare = alignment_tax if options.alignment_tax else win_rate
        sys.stdout.write(f"{compare(options)}\n")
        return
    result = evaluate(options)
    sys.stdout.write(f"{result.checkpoint}\n{result}\n")


@options_class()
class Doctor(Options):
    """Nothing to choose."""


def run_doctor(options: Doctor) -> None:
    """Print what was built and found."""
    from instructgpt_fast.doctor import doctor

    doctor()
