"""A finished quickstart, read back: its plan, files, checkpoints, and the options that its stages were trained with."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructgpt_fast.checkpoint import Loaded, load_model, resolve
from instructgpt_fast.quickstart import assets
from instructgpt_fast.quickstart.labelers import Labelers
from instructgpt_fast.quickstart.material import Material
from instructgpt_fast.quickstart.plan import Plan
from instructgpt_fast.quickstart.recipe import Recipe
from instructgpt_fast.quickstart.run import QuickstartConfig

NEEDED = ("sft", "reward")


@dataclass(frozen=True)
class Quickstart:
    """What the ablations start from: the SFT model, the reward model, and the quickstart's data and options."""

    folder: Path
    plan: Plan
    material: Material
    checkpoints: dict[str, str]
    seed: int

    @classmethod
    def read(cls, folder: Path) -> Quickstart:
        """Read results.json of a finished run. Raises SystemExit when there is none."""
        results = folder / "results.json"
        if not results.exists():
            raise SystemExit(
                f"ablations: {folder} must hold a finished quickstart, got no {results.name}; "
                f"run `instructgpt-fast quickstart --output-dir {folder}` first"
            )
        plan = json.loads(results.read_text(encoding="utf-8"))["plan"]
        journal = json.loads((folder / "quickstart.json").read_text(encoding="utf-8"))
        return cls(
            folder, Plan(**{**plan, "corpora": tuple(plan["corpora"])}), Material(folder / "data"),
            {name: str(resolve(folder / name)) for name in NEEDED}, int(journal["options"]["seed"]),
        )

    def options(self, stage: str, output: Path, seed: int, **changes: Any) -> Any:
        """The quickstart's own options of a stage with these changes, for a run of its own in `output`."""
        config = QuickstartConfig(output_dir=str(self.folder), device="cpu", progress=False)
        recipe = Recipe(self.plan, self.material, self.folder, config)
        made = recipe.options(stage, self.checkpoints)
        return dataclasses.replace(
            made, output_dir=str(output), seed=seed, resume_from_checkpoint=None, overwrite_output_dir=True, **changes
        )

    def load(self, name: str) -> Loaded:
        """A model of the quickstart."""
        return load_model(self.checkpoints[name])

    def labelers(self) -> Labelers:
        """The quickstart's stand-in for labelers."""
        return Labelers(assets.vader_ratings(words_only=True))
