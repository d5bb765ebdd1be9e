"""Hugging Face folders small enough to make by the dozen: a tokenizer in GPT-2's layout, models of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from instructgpt_fast.tokenizer.byte_level import ALPHABET

EOS = "<|endoftext|>"
SHAPE = {"n_positions": 48, "n_embd": 32, "n_layer": 2, "n_head": 4}
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "a")]
TOKENS = len(ALPHABET) + len(MERGES) + 1


def write_tokenizer(folder: Path) -> None:
    """vocab.json and merges.txt; EOS last, as GPT-2's."""
    tokens = [*ALPHABET, *("".join(pair) for pair in MERGES), EOS]
    vocab = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES)
    (folder / "merges.txt").write_text(merges, encoding="utf-8")


def shaken(model: Any, size: float = 0.2) -> Any:
    """The model with every parameter moved, so that biases and norms differ from their first values too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * size)
    return model.eval()


def gpt2(folder: Path, seed: int = 0, *, kind: str = "GPT2LMHeadModel", save: Any = None, **shape: Any) -> Any:
    """Write a random model of transformers' `kind` with its tokenizer, and return it."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        **{"vocab_size": TOKENS, "bos_token_id": TOKENS - 1, "eos_token_id": TOKENS - 1, **SHAPE, **shape}
    )
    model = shaken(getattr(transformers, kind)(config))
    model.to(config.dtype or torch.float32).save_pretrained(folder, **(save or {}))
    write_tokenizer(folder)
    return model


def edit(folder: Path, file: str = "config.json", **changes: Any) -> None:
    """Change entries of a JSON file."""
    path = folder / file
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def judged_logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """What transformers says of the tokens, in f32."""
    with torch.no_grad():
        return model.float()(tokens).logits


def own_logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """What this package says of the tokens."""
    with torch.no_grad():
        return model.logits(model(tokens))
