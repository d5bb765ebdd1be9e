"""Tiny text, demonstrations, comparisons and models that the tests of the stages share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer

ANIMALS = ("cat", "dog", "owl", "hen", "fox", "cow", "pig")
SENTENCES = [f"The {a} saw the {b} near the old tree and ran home." for a in ANIMALS for b in ANIMALS if a != b]
CONTEXT = 48


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class Material:
    """Files of one folder; the first half of each kind to train on, the rest to evaluate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        demonstrations = [
            {"prompt": f"Name {a} and {b}.", "response": f"{a} {b}"} for a in ANIMALS for b in ANIMALS if a != b
        ]
        comparisons = [
            {"prompt": f"Praise the {a}.", "completions": [f"good {a}", f"some {a}", f"bad {a}", f"bad {a}!"],
             "ranks": [1, 2, 3, 3]}
            for a in ANIMALS for _ in range(3)
        ]
        self.text = write_jsonl(folder / "text.jsonl", ({"text": text} for text in SENTENCES))
        self.eval_text = write_jsonl(folder / "eval_text.jsonl", ({"text": text} for text in SENTENCES[:8]))
        self.demonstrations = write_jsonl(folder / "demonstrations.jsonl", demonstrations[8:])
        self.eval_demonstrations = write_jsonl(folder / "eval_demonstrations.jsonl", demonstrations[:8])
        self.comparisons = write_jsonl(folder / "comparisons.jsonl", comparisons[3:])
        self.eval_comparisons = write_jsonl(folder / "eval_comparisons.jsonl", comparisons[:6])
        self.tokenizer = Tokenizer.train(SENTENCES, 300)
        self.tokenizer_path = str(self.tokenizer.save(folder))

    def gpt(self, seed: int = 0, **changes: Any) -> GPT:
        torch.manual_seed(seed)
        shape: dict[str, Any] = {
            "vocab_size": self.tokenizer.vocab_size, "n_positions": CONTEXT, "n_layer": 2, "n_head": 2, "d_model": 32,
        }
        return GPT(GPTConfig(**(shape | changes)))

    def save(self, name: str, model: GPT | ScalarModel, *, tokenizer: Tokenizer | None = None) -> str:
        given = tokenizer or self.tokenizer
        target = self.folder / name
        return str(save_checkpoint(target, model=model, tokenizer=given, prompt_format="dialogue", stage="sft"))
