"""The quickstart's options first, then its stages in the paper's order; a finished stage is never run again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.config import Options, options_class
from instructgpt_fast.device import choose_device
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.files import atomic_write
from instructgpt_fast.quickstart import assets
from instructgpt_fast.quickstart.labelers import Labelers
from instructgpt_fast.quickstart.material import Material, write_material, write_rows
from instructgpt_fast.quickstart.plan import SMALL_MINUTES, Plan, plan_for
from instructgpt_fast.quickstart.ranking import Sampler, ranked_answers, with_seed
from instructgpt_fast.quickstart.recipe import Recipe
from instructgpt_fast.quickstart.results import answers_of, measure_accuracy, measure_perplexity, measure_policy
from instructgpt_fast.quickstart.table import show_results
from instructgpt_fast.report import report
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train import train

POLICIES = ("sft", "ppo", "ppo_ptx")


@options_class()
class QuickstartConfig(Options):
    """Options of the quickstart: how long it may take and where it is kept."""

    stage: ClassVar[str] = "quickstart"

    minutes: float = SMALL_MINUTES
    """Minutes that the run may take on two cores; from 25 on a larger model is trained."""
    output_dir: str = "runs/quickstart"
    """Directory of the run; the same command continues a run that was stopped."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """"cpu", "cuda" or "auto"."""
    progress: bool = True
    """Show progress with rate and time left."""


@dataclass(frozen=True)
class QuickstartResult:
    """Where the run is and what it measured (results.json)."""

    run_dir: Path
    results: dict[str, Any]


@dataclass
class Journal:
    """quickstart.json: the options of the run and what each finished step left behind."""

    path: Path
    options: dict[str, Any]
    done: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, options: dict[str, Any]) -> Journal:
        """Read the journal of an earlier call, or begin one. Raises ConfigError when it was made with other options."""
        path = folder / "quickstart.json"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            return cls(path, options)
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["options"] != options:
            raise ConfigError(
                f"quickstart: {folder} holds a run with {stored['options']}, got {options}; "
                "choose another output_dir, or delete that one"
            )
        return cls(path, options, stored["done"])

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """Return what `work` returned when it was first finished; run it otherwise and keep its seconds."""
        if name not in self.done:
            started = time.monotonic()
            value = work()
            self.done[name] = {"value": value, "seconds": round(time.monotonic() - started, 1)}
            atomic_write(self.path, json.dumps({"options": self.options, "done": self.done}, indent=1))
        return self.done[name]["value"]


def run_quickstart(config: QuickstartConfig) -> QuickstartResult:
    """Train a tokenizer, a base model, SFT, a reward model, PPO and PPO-ptx; measure and show them, in report.html too.

    Raises what `instructgpt_fast.train` raises; after Ctrl-C the same call continues.
    """
    folder = Path(config.output_dir)
    plan = plan_for(config.minutes)
    journal = Journal.open(folder, {"minutes": config.minutes, "seed": config.seed})
    material = Material(folder / "data")
    journal.once("material", lambda: str(write_material(material.folder, plan, config.seed).folder))
    journal.once("tokenizer", lambda: _train_tokenizer(folder, material, plan))
    recipe = Recipe(plan, material, folder, config)
    checkpoints: dict[str, str] = {}

    def stage(name: str) -> None:
        checkpoints[name] = journal.once(name, lambda: _train_stage(recipe, name, checkpoints))

    stage("base")
    stage("sft")
    journal.once("comparisons", lambda: _compare(checkpoints["sft"], material, plan, config))
    for name in ("reward", "ppo", "ppo_ptx"):
        stage(name)
    results = journal.once("results", lambda: _measure(checkpoints, material, plan, config))
    results = {**results, "seconds": {name: entry["seconds"] for name, entry in journal.done.items()}}
    atomic_write(folder / "results.json", json.dumps(results, indent=1))
    show_results(results, folder)  # first: what was measured is told even where the page cannot be written
    report(folder)
    return QuickstartResult(folder, results)


def _train_tokenizer(folder: Path, material: Material, plan: Plan) -> str:
    texts = (row["text"] for row in material.rows(material.text))
    path = folder / "tokenizer" / "tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    Tokenizer.train(texts, plan.vocab).save(path)
    return str(path)


def _train_stage(recipe: Recipe, name: str, checkpoints: dict[str, str]) -> str:
    return str(train(recipe.options(name, checkpoints)).checkpoint)


def _load(path: str, config: QuickstartConfig) -> Any:
    return load_model(path, device=choose_device(config.device)[0])


def _labelers() -> Labelers:
    return Labelers(assets.vader_ratings(words_only=True))


def _compare(sft: str, material: Material, plan: Plan, config: QuickstartConfig) -> dict[str, Any]:
    """Sample and rank answers for training and, to openings of kept chapters, for validation."""
    labelers = _labelers()
    sampler = Sampler(_load(sft, config), plan.answer_tokens, config.seed + 1)
    prompts = [row["prompt"] for row in material.rows(material.comparison_prompts)]
    kept = [row["prompt"] for row in material.rows(material.validation_demonstrations)]
    training = ranked_answers(sampler, prompts, labelers, name="answers", progress=config.progress)
    validation = ranked_answers(
        with_seed(sampler, config.seed + 2), kept, labelers, name="held-out answers", progress=config.progress
    )
    write_rows(material.comparisons, training)
    write_rows(material.validation_comparisons, validation)
    return {
        "prompts": len(training), "answers": sum(len(row["ranks"]) for row in training),
        "agreement": labelers.agreement([row["completions"] for row in validation]),
    }


def _measure(checkpoints: dict[str, str], material: Material, plan: Plan, config: QuickstartConfig) -> dict[str, Any]:
    """Everything the table shows."""
    loaded = {name: _load(path, config) for name, path in checkpoints.items()}
    texts = [row["text"] for row in material.rows(material.validation_text)]
    prompts = [row["prompt"] for row in material.rows(material.validation_demonstrations)]
    labelers = _labelers()
    shown = prompts[:3]
    return {
        "parameters": sum(p.numel() for p in loaded["base"].model.parameters()),
        "plan": {**asdict(plan), "corpora": list(plan.corpora)},
        "perplexity": {name: measure_perplexity(loaded[name], texts) for name in ("base", *POLICIES)},
        "accuracy": measure_accuracy(loaded["reward"], material.rows(material.validation_comparisons)),
        "agreement": labelers.agreement(
            [row["completions"] for row in material.rows(material.validation_comparisons)]
        ),
        "policies": {
            name: asdict(
                measure_policy(
                    loaded[name], loaded["sft"], loaded["reward"], labelers, prompts, plan.answer_tokens,
                    config.seed + 3,
                )
            )
            for name in POLICIES
        },
        "answers": {
            "prompts": shown,
            **{n: answers_of(loaded[n], shown, plan.answer_tokens, config.seed) for n in ("base", *POLICIES)},
        },
        "checkpoints": checkpoints,
    }
