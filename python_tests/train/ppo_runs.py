"""Tiny PPO runs: checkpoints of random models over a 300-token vocabulary, and options that finish in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train.loop import TrainResult
from instructgpt_fast.train.metrics import read_metrics
from instructgpt_fast.train.ppo import PpoConfig, run_ppo

TEXT = ("the cat sat on the mat and the dog ran to the man in the sun. " * 40).strip()
PROMPTS = ["the cat", "the dog ran", "a man", "in the sun and", "the mat", "sat on", "ran to the", "cat and dog"]


def train_tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT], 300, min_frequency=2)


def config_of(tokenizer: Tokenizer, **more: Any) -> GPTConfig:
    shape = {"n_positions": 48, "n_layer": 2, "n_head": 2, "d_model": 32, **more}
    return GPTConfig(vocab_size=tokenizer.vocab_size, **shape)


def save_policy(folder: Path, tokenizer: Tokenizer, *, seed: int = 0, **more: Any) -> Path:
    torch.manual_seed(seed)
    model = GPT(config_of(tokenizer, **more))
    return save_checkpoint(
        folder / "checkpoint-000001", model=model, tokenizer=tokenizer, prompt_format="raw", stage="sft"
    )


def save_reward_model(folder: Path, tokenizer: Tokenizer, *, seed: int = 1, shift: float = 0.0, **more: Any) -> Path:
    torch.manual_seed(seed)
    model = ScalarModel(config_of(tokenizer, **{"n_layer": 1, "d_model": 16, **more}))
    model.bias_shift.fill_(shift)
    return save_checkpoint(
        folder / "checkpoint-000001", model=model, tokenizer=tokenizer, prompt_format="raw", stage="reward"
    )


def write_prompts(path: Path, prompts: list[str] | None = None) -> Path:
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts or PROMPTS), encoding="utf-8")
    return path


def share_of_small_letters(prompts: list[str], responses: list[str]) -> list[float]:
    """A reward that a policy can learn in a few steps: the share of a..z, a quarter in random bytes."""
    return [sum("a" <= c <= "z" for c in response) / max(len(response), 1) for response in responses]


class World:
    """A folder with a policy, a reward model, prompts and text, and a way to run PPO on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = train_tokenizer()
        self.policy = save_policy(folder / "sft", self.tokenizer)
        self.reward_model = save_reward_model(folder / "rm", self.tokenizer)
        self.prompts = write_prompts(folder / "prompts.jsonl")
        self.text = folder / "text.txt"
        self.text.write_text(TEXT, encoding="utf-8")

    def options(self, output: str, **more: Any) -> dict[str, Any]:
        return {
            "policy": str(self.policy), "prompts": str(self.prompts), "output_dir": str(self.folder / output),
            "total_episodes": 16, "batch_size": 8, "mini_batch_size": 4, "per_device_train_batch_size": 2,
            "rollout_batch_size": 8, "max_response_tokens": 10, "learning_rate": 1e-3, "value_learning_rate": 1e-3,
            "lr_warmup_iterations": 0, "logging_steps": 1, "progress": False, "kl_coef": 0.02, **more,
        }

    def run(self, output: str, *, reward_fn: Any = None, **more: Any) -> TrainResult:
        if reward_fn is None:
            more.setdefault("reward_model", str(self.reward_model))
        return run_ppo(PpoConfig(**self.options(output, **more)), reward_fn=reward_fn)

    def metrics(self, output: str) -> list[dict[str, Any]]:
        return read_metrics(self.folder / output)
