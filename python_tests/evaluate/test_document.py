"""docs/evaluation.md: its example runs as it stands; its tables name the metrics, kinds and templates there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.cli import main
from instructgpt_fast.evaluate.alignment_tax import PAPER_TASKS
from instructgpt_fast.evaluate.generation import METRICS, SCORED
from instructgpt_fast.evaluate.kinds import KINDS, find_task
from instructgpt_fast.evaluate.task_file import template_names
from instructgpt_fast.model import GPTConfig
from instructgpt_fast.tokenizer import Tokenizer

from ..model.reference import random_gpt

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = Tokenizer.train(["Q: What is the capital of France?\nA: Paris"] * 4, 300)
    config = GPTConfig(tokenizer.vocab_size, n_positions=256, n_layer=1, n_head=2, d_model=16)
    for place, (name, prompt_format) in enumerate((("base", "raw"), ("ppo", "dialogue"))):
        model = random_gpt(config, seed=place)
        with torch.no_grad():
            model.wte.weight[tokenizer.eos_id] = 0.0  # answers of some length
        save_checkpoint(
            tmp_path / "runs" / name / "checkpoint-000001", model=model, tokenizer=tokenizer, stage=name,
            prompt_format=prompt_format,  # type: ignore[arg-type]
        )
    monkeypatch.chdir(tmp_path)
    task, = blocks("toml")
    for name, text in zip(("capitals.toml", "capitals.jsonl", "solved.jsonl"), [task, *blocks("jsonl")], strict=True):
        Path(name).write_text(text, encoding="utf-8")
    command, = blocks("sh")
    assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err
    assert "capitals  exact_match" in capsys.readouterr().out
    names: dict[str, object] = {}
    examples = blocks("python")
    assert len(examples) >= 5
    for number, block in enumerate(examples):
        exec(compile(block, f"docs/evaluation.md, example {number}", "exec"), names)


def test_every_metric_kind_and_template_is_told() -> None:
    for name in (*METRICS, *SCORED, *KINDS, *template_names()):
        assert f"`{name}`" in DOCUMENT or f"`{name.rpartition('_')[0]}_*`" in DOCUMENT, name


def test_the_papers_tasks_are_told_as_they_are_run() -> None:
    """Each file's template, and the metric of Ouyang et al. 2022, table 14, among those that the template takes."""
    rows = re.findall(r"\| `(\w+)\.jsonl` \| `(\w+)` \| (\w+)", DOCUMENT)
    assert {name: template for name, template, _ in rows} == dict(PAPER_TASKS)
    for name, template, metric in rows:
        options = find_task(template, f"{name}.jsonl").options
        assert metric == "accuracy" if options.kind == "multiple_choice" else metric in options.metrics
