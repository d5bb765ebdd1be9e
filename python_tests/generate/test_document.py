"""docs/generation.md: its examples run as they stand, and its tables name the options and methods that there are."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.generate import Completion, Engine, SamplingConfig
from instructgpt_fast.model import GPTConfig
from instructgpt_fast.tokenizer import Tokenizer

from ..model.reference import random_gpt

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "generation.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.train(["Name a cat or a dog: sea mer, sky ciel, Into French => the sun."] * 4, 300)
    config = GPTConfig(tokenizer.vocab_size, n_positions=128, n_layer=2, n_head=2, d_model=16)
    for place, (name, prompt_format) in enumerate((("base", "raw"), ("ppo", "dialogue"))):
        model = random_gpt(config, seed=place)
        with torch.no_grad():
            model.wte.weight[tokenizer.eos_id] = 0.0  # answers of some length
        save_checkpoint(
            tmp_path / "runs" / name / "checkpoint-000001", model=model, tokenizer=tokenizer, stage=name,
            prompt_format=prompt_format,  # type: ignore[arg-type]
        )
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/generation.md, example {number}", "exec"), names)


def test_every_option_and_method_is_told() -> None:
    for field in dataclasses.fields(SamplingConfig):
        assert f"`{field.name}`" in DOCUMENT or f"{field.name}=" in DOCUMENT, field.name
    for field in dataclasses.fields(Completion):
        assert f"`{field.name}`" in DOCUMENT, field.name
    for name in (name for name in vars(Engine) if not name.startswith("_") and callable(getattr(Engine, name))):
        assert f"`{name}(" in DOCUMENT, name
