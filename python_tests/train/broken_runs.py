"""Four small but real PPO runs, each the healthy one but for one fault: what the diagnosis and the report are tried on.

A model of two layers learns sentences like "the cat saw the dog near the barn." and is rewarded for a dog in its
answer. A run takes a second or two on one core.

python -m python_tests.train.broken_runs    writes their metrics anew to python_tests/diagnosis/recorded
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from instructgpt_fast.files import atomic_write
from instructgpt_fast.rlhf.scorers import RewardFunction
from instructgpt_fast.train import TrainResult, train
from instructgpt_fast.train.metrics import read_metrics

ANIMALS = ("cat", "dog", "owl", "hen", "fox", "cow", "pig")
DEEDS = ("saw", "met", "fed", "hid", "led")
PLACES = ("tree", "barn", "road", "pond", "hill")
ITERATIONS, EPISODES = 40, 32


def has_dog(prompts: list[str], responses: list[str]) -> list[float]:
    """1 for an answer with a dog in it, else 0."""
    return [float(" dog" in response) for response in responses]


def length(prompts: list[str], responses: list[str]) -> list[float]:
    """A reward that pays for length alone: twentieths of a character."""
    return [len(response) / 20 for response in responses]


@dataclass(frozen=True)
class Fault:
    """What a run does differently from the healthy one, and the finding that names it."""

    finding: str | None
    reward_fn: RewardFunction = has_dog
    options: Mapping[str, Any] = field(default_factory=dict)


HEALTHY_RATE = 5e-4
FAULTS: dict[str, Fault] = {
    "healthy": Fault(None),
    "no_kl": Fault("kl_runaway", options={"kl_coef": 0.0}),
    "reward_is_length": Fault("reward_hacking_by_length", reward_fn=length),
    "rate_times_100": Fault("learning_rate_too_high", options={"learning_rate": 100 * HEALTHY_RATE}),
}


def sentence(draw: Callable[[], float], choose: Callable[[tuple[str, ...]], str]) -> str:
    text = f"the {choose(ANIMALS)} {choose(DEEDS)} the {choose(ANIMALS)}"
    while draw() < 0.5:
        text += choose((f" near the {choose(PLACES)}", f" and the {choose(ANIMALS)}", f" in the {choose(PLACES)}"))
    return text + "."


class BrokenRuns:
    """A folder with a pretrained policy and its prompts; `run` makes any of the four runs in it, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(0)
        texts = [sentence(rng.random, rng.choice) for _ in range(3000)]
        self.text = folder / "text.jsonl"
        self.text.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        self.prompts = folder / "prompts.jsonl"
        prompts = [f"the {animal} {deed} the" for animal in ANIMALS for deed in DEEDS]
        self.prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts), encoding="utf-8")
        self.base = train(
            "pretrain", data=str(self.text), vocab_size=300, model="tiny", n_layer=2, n_head=2, d_model=32,
            n_positions=64, max_steps=150, per_device_train_batch_size=8, learning_rate=1e-2,
            output_dir=str(folder / "base"), progress=False,
        )
        self._made: dict[str, TrainResult] = {}

    def options(self, name: str, **more: Any) -> dict[str, Any]:
        return {
            "policy": str(self.base.checkpoint), "prompts": str(self.prompts), "output_dir": str(self.folder / name),
            "total_episodes": ITERATIONS * EPISODES, "batch_size": EPISODES, "mini_batch_size": 16,
            "per_device_train_batch_size": 16, "rollout_batch_size": EPISODES, "max_response_tokens": 40,
            "learning_rate": HEALTHY_RATE, "value_learning_rate": 2e-3, "lr_warmup_iterations": 2, "kl_coef": 0.1,
            "ema_decay": None, "save_steps": 10, "progress": False, **more,
        }

    def run(self, name: str) -> Path:
        """The directory of one of FAULTS, trained when it is first asked for."""
        if name not in self._made:
            fault = FAULTS[name]
            self._made[name] = train("ppo", reward_fn=fault.reward_fn, **self.options(name, **fault.options))
        return self._made[name].run_dir


RECORDED = Path(__file__).resolve().parents[1] / "diagnosis" / "recorded"


def shortened(records: list[dict[str, Any]]) -> str:
    """Records as JSON lines without times and with five digits: the same story in a third of the bytes."""
    def kept(record: dict[str, Any]) -> dict[str, Any]:
        return {
            name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in record.items()
            if not name.startswith("time/") and not name.endswith("_per_second")
        }

    return "".join(json.dumps(kept(record)) + "\n" for record in records)


def main() -> None:
    """Write the metrics of the four runs anew to where the quick tests and the document read them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        runs = BrokenRuns(Path(folder))
        for name in FAULTS:
            atomic_write(RECORDED / f"{name}.jsonl", shortened(read_metrics(runs.run(name))))


if __name__ == "__main__":
    main()
