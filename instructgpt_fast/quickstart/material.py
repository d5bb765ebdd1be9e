"""The files a quickstart trains on, made from the texts and facts that travel with the package.

Everything a model is judged on comes from chapters that no training file has seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructgpt_fast.files import atomic_write
from instructgpt_fast.quickstart import assets
from instructgpt_fast.quickstart.plan import Plan
from instructgpt_fast.quickstart.tasks import Example, definition_examples, quiz_examples, shuffled, story_examples


@dataclass(frozen=True)
class Material:
    """Paths of the files of one quickstart; see `write_material` for what is in each."""

    folder: Path

    @property
    def text(self) -> Path:
        """Pretraining text: {"text"} lines, a chapter each."""
        return self.folder / "text.jsonl"

    @property
    def validation_text(self) -> Path:
        """Chapters kept for perplexity."""
        return self.folder / "validation_text.jsonl"

    @property
    def demonstrations(self) -> Path:
        """{"prompt", "response"} lines for SFT."""
        return self.folder / "demonstrations.jsonl"

    @property
    def validation_demonstrations(self) -> Path:
        """Story openings of the kept chapters with the sentence that follows in the book."""
        return self.folder / "validation_demonstrations.jsonl"

    @property
    def comparison_prompts(self) -> Path:
        """{"prompt"} lines whose answers are ranked for the reward model."""
        return self.folder / "comparison_prompts.jsonl"

    @property
    def ppo_prompts(self) -> Path:
        """{"prompt"} lines that PPO answers."""
        return self.folder / "ppo_prompts.jsonl"

    @property
    def comparisons(self) -> Path:
        """{"prompt", "completions", "ranks"} lines for the reward model."""
        return self.folder / "comparisons.jsonl"

    @property
    def validation_comparisons(self) -> Path:
        """Ranked answers to the openings of the kept chapters."""
        return self.folder / "validation_comparisons.jsonl"

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """The rows of one of these files."""
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write jsonl whole or not at all."""
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_material(folder: Path, plan: Plan, seed: int) -> Material:
    """Write every file that needs no model.

    Story openings are parted among demonstrations, reward-model prompts and PPO prompts, so that no prompt is used
    twice; definitions and quiz questions are demonstrations only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    material = Material(folder)
    training, validation = assets.split(assets.corpus(plan.corpora), plan.validation_fraction)
    write_rows(material.text, ({"text": document.text} for document in training))
    write_rows(material.validation_text, ({"text": document.text} for document in validation))

    stories = shuffled(story_examples(training), seed)
    kept = shuffled(story_examples(validation), seed)[: plan.validation_prompts]
    demonstrated, rest = stories[: plan.story_demonstrations], stories[plan.story_demonstrations :]
    compared, played = rest[: plan.comparison_prompts], rest[plan.comparison_prompts :]
    facts = shuffled([*definition_examples(assets.definitions()), *quiz_examples(assets.quiz_facts())], seed)
    demonstrations = shuffled([*demonstrated, *facts[: plan.fact_demonstrations]], seed)

    write_rows(material.demonstrations, map(_row, demonstrations))
    write_rows(material.validation_demonstrations, map(_row, kept))
    write_rows(material.comparison_prompts, _prompts(compared))
    write_rows(material.ppo_prompts, _prompts(played))
    return material


def _row(example: Example) -> dict[str, str]:
    return {"prompt": example.prompt, "response": example.response}


def _prompts(examples: Sequence[Example]) -> list[dict[str, str]]:
    return [{"prompt": example.prompt} for example in examples]
