"""The stages through `instructgpt_fast.train` and its decoder, for the stage benchmarks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import instructgpt_fast as igf
from benchmarks.stages.clock import StepClock
from benchmarks.stages.work import Work
from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.generate import SamplingConfig, sample
from instructgpt_fast.train.loop import Run

ENDLESS = 1_000_000


def prepare(stage: str) -> Callable[[Work, int, StepClock, Path], None]:
    """Import what the stage needs and return it."""
    importlib.import_module("instructgpt_fast.ops")
    if stage != "generate":
        importlib.import_module(f"instructgpt_fast.train.{stage}")
    return {"pretrain": pretrain, "sft": sft, "reward": reward, "ppo": ppo, "generate": generate}[stage]


def clocked(config: Any, clock: StepClock) -> None:
    """Run a stage with the clock around each of its steps; tokens are those the stage itself counts."""
    steps = Run.steps

    def timed(self: Run, first: int, total: int) -> Iterator[int]:
        clock.begin()
        for step in steps(self, first, total):
            yield step
            clock.step_done(round(self._work))

    Run.steps = timed  # type: ignore[method-assign]
    try:
        igf.train(config)
    finally:
        Run.steps = steps  # type: ignore[method-assign]


def shared(work: Work, output: Path) -> dict[str, Any]:
    return {
        "output_dir": str(output / "run"), "save_steps": ENDLESS, "progress": False, "device": "cpu",
        "learning_rate": 1e-5, "seed": work.seed,
    }


def pretrain(work: Work, steps: int, clock: StepClock, output: Path) -> None:
    size = work.size
    clocked(igf.PretrainConfig(
        **shared(work, output), max_steps=steps, data=str(work.text), tokenizer=str(work.tokenizer), model="gpt2-124m",
        n_layer=size.layers, n_head=size.heads, d_model=size.width, n_positions=size.positions,
        per_device_train_batch_size=work.pretrain_batch,
    ), clock)


def sft(work: Work, steps: int, clock: StepClock, output: Path) -> None:
    clocked(igf.SftConfig(
        **shared(work, output), max_steps=steps, init=str(work.policy), data=str(work.demonstrations),
        prompt_format="raw", residual_dropout=0.0, train_batch_size=work.sft_batch,
        per_device_train_batch_size=work.sft_batch,
    ), clock)


def reward(work: Work, steps: int, clock: StepClock, output: Path) -> None:
    clocked(igf.RewardConfig(
        **shared(work, output), max_steps=steps, init=str(work.policy), data=str(work.comparisons),
        train_batch_size=work.reward_batch, per_device_train_batch_size=work.reward_batch,
    ), clock)


def ppo(work: Work, steps: int, clock: StepClock, output: Path) -> None:
    clocked(igf.PpoConfig(
        **shared(work, output), policy=str(work.policy), reward_model=str(work.scorer), value_model=str(work.scorer),
        prompts=str(work.prompts), total_episodes=steps * work.ppo_batch, batch_size=work.ppo_batch,
        mini_batch_size=work.ppo_batch, per_device_train_batch_size=work.ppo_pass, rollout_batch_size=work.ppo_batch,
        max_response_tokens=work.ppo_new_tokens, value_learning_rate=1e-5, ema_decay=None, missing_eos_penalty=None,
    ), clock)


def generate(work: Work, calls: int, clock: StepClock, _: Path) -> None:
    model = load_model(work.policy, device="cpu").model.eval()
    generator = torch.Generator().manual_seed(work.seed)
    for _call in range(calls):
        shape = (work.generate_batch, work.prompt_tokens)
        prompts = torch.randint(0, work.size.vocab, shape, generator=generator).tolist()
        clock.begin()
        # An id outside the vocabulary never ends a row, so every contender decodes the same number of tokens.
        drawn = sample(
            model, prompts, SamplingConfig(max_new_tokens=work.new_tokens), eos_id=-1,
            seeds=list(range(work.generate_batch)), batch_size=work.generate_batch,
        )
        clock.step_done(sum(len(completion.tokens) for completion in drawn))
