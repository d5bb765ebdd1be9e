"""The options of each stage of the quickstart: the paper's where they fit, and a small model's where they must.

A model of a few million parameters that sees a few hundred steps needs learning rates some hundred times the paper's;
ratios, schedules and everything else keep the stages' defaults. Numbers here are ours [O], found by trying.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructgpt_fast.quickstart.material import Material
from instructgpt_fast.quickstart.plan import Plan
from instructgpt_fast.train import PpoConfig, PretrainConfig, RewardConfig, SftConfig
from instructgpt_fast.train.options import RunOptions

if TYPE_CHECKING:
    from instructgpt_fast.quickstart.run import QuickstartConfig


@dataclass(frozen=True)
class Recipe:
    """Makes the options of a stage from the plan, the files and the checkpoints that earlier stages left."""

    plan: Plan
    material: Material
    folder: Path
    config: QuickstartConfig

    def options(self, name: str, checkpoints: dict[str, str]) -> RunOptions:
        """The options of "base", "sft", "reward", "ppo" or "ppo_ptx"."""
        made: dict[str, Callable[[str, dict[str, str]], RunOptions]] = {
            "base": self._base, "sft": self._sft, "reward": self._reward, "ppo": self._ppo, "ppo_ptx": self._ppo_ptx,
        }
        return made[name](name, checkpoints)

    def _run(self, name: str) -> dict[str, Any]:
        return {
            "output_dir": str(self.folder / name), "seed": self.config.seed, "device": self.config.device,
            "progress": self.config.progress, "resume_from_checkpoint": "latest", "save_total_limit": 1,
        }

    def _base(self, name: str, _: dict[str, str]) -> PretrainConfig:
        plan = self.plan
        return PretrainConfig(
            **self._run(name), data=str(self.material.text), tokenizer=str(self.folder / "tokenizer"),
            model="gpt2-124m", n_layer=plan.layers, n_head=plan.heads, d_model=plan.width, n_positions=plan.context,
            per_device_train_batch_size=plan.pretrain_batch, max_steps=plan.pretrain_steps, learning_rate=2e-3,
            save_steps=200,
        )

    def _sft(self, name: str, checkpoints: dict[str, str]) -> SftConfig:
        plan = self.plan
        return SftConfig(
            **self._run(name), init=checkpoints["base"], data=str(self.material.demonstrations),
            pretrain_data=str(self.material.text), pretrain_mix=0.1, num_train_epochs=plan.sft_epochs,
            train_batch_size=plan.sft_batch, per_device_train_batch_size=plan.sft_batch, learning_rate=3e-4,
            residual_dropout=0.0, save_steps=100,
        )

    def _reward(self, name: str, checkpoints: dict[str, str]) -> RewardConfig:
        plan = self.plan
        return RewardConfig(
            **self._run(name), init=checkpoints["sft"], data=str(self.material.comparisons),
            demonstrations=str(self.material.validation_demonstrations), train_batch_size=plan.reward_batch,
            per_device_train_batch_size=plan.reward_batch, learning_rate=5e-4, save_steps=50,
            eval_data=str(self.material.validation_comparisons), per_device_eval_batch_size=64,
        )

    def _ppo(self, name: str, checkpoints: dict[str, str], **more: Any) -> PpoConfig:
        plan = self.plan
        return PpoConfig(
            **self._run(name), policy=checkpoints["sft"], reward_model=checkpoints["reward"],
            value_model=checkpoints["reward"], prompts=str(self.material.ppo_prompts),
            demonstrations=str(self.material.validation_demonstrations), total_episodes=plan.episodes,
            batch_size=plan.ppo_batch, mini_batch_size=plan.ppo_minibatch,
            per_device_train_batch_size=plan.ppo_minibatch, rollout_batch_size=plan.ppo_batch,
            max_response_tokens=plan.answer_tokens, kl_coef=0.1, learning_rate=1.5e-4, value_learning_rate=5e-4,
            lr_warmup_iterations=2, ema_decay=None, logging_steps=1, save_steps=5, **more,
        )

    def _ppo_ptx(self, name: str, checkpoints: dict[str, str]) -> PpoConfig:
        return self._ppo(
            name, checkpoints, ptx_data=str(self.material.text), ptx_ratio=0.5, ptx_coef=1.0, ptx_length=128,
        )
