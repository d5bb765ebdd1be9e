"""A run small enough to save hundreds of times: a tokenizer, two models, their optimizers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from instructgpt_fast.checkpoint import TrainerState, save_checkpoint
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.optim import AdamW
from instructgpt_fast.tokenizer import Tokenizer


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the quick brown fox jumps over the lazy dog"] * 4, 270)


def config(**changes: Any) -> GPTConfig:
    shape = {"n_positions": 16, "n_layer": 1, "n_head": 2, "d_model": 8}
    return GPTConfig(vocab_size=tokenizer().vocab_size, **{**shape, **changes})


class SmallRun:
    """A policy and a value model in training, as PPO has them."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(seed)
        self.policy = GPT(config(residual_dropout=0.1), dtype=dtype)
        self.value = ScalarModel(config(n_layer=2), dtype=dtype)
        self.optimizers = {
            "policy": AdamW(self.policy, weight_decay=0.1, ema_decay=0.9), "value": AdamW(self.value),
        }
        self.counters: dict[str, Any] = {"step": 0, "kl_coef": 0.1}

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        return {"policy": self.policy, "value": self.value}

    def train(self, steps: int) -> None:
        """Steps that draw tokens and dropout from the global generator, so that a resumed run must restore it."""
        for _ in range(steps):
            tokens = torch.randint(self.policy.config.vocab_size, (2, 7))
            self.policy(tokens).float().square().mean().backward()
            self.value(tokens).square().mean().backward()
            for optimizer in self.optimizers.values():
                optimizer.step(1e-2)
                optimizer.zero_grad()
            self.counters["step"] += 1
            self.counters["kl_coef"] *= 1.1

    def save(self, directory: Path, **options: Any) -> Path:
        state = TrainerState(self.modules, self.optimizers, self.counters, {"learning_rate": 1e-2})
        return save_checkpoint(
            directory, model=self.policy, tokenizer=tokenizer(), prompt_format="dialogue", stage="ppo", trainer=state,
            **options,
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every number of the run by name."""
        found: dict[str, torch.Tensor] = {}
        for name, module in self.modules.items():
            found |= {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}
            found |= {f"{name}.{key}": tensor for key, tensor in self.optimizers[name].state_dict().items()}
        return found
