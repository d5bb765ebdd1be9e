"""The stages through `instructgpt_fast.train` and its decoder, for the stage benchmarks.

Each function returns the seconds of every optimizer step (PPO: iteration), or of every generation call.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import instructgpt_fast as igf
from benchmarks.stages.work import Work
from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.generate import SamplingConfig, sample
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train.loop import Run

ENDLESS = 1_000_000


def clocked(config: Any) -> list[float]:
    """Run a stage; return the wall-clock seconds of each of its steps."""
    seconds: list[float] = []
    steps = Run.steps

    def timed(self: Run, first: int, total: int) -> Iterator[int]:
        started = time.perf_counter()
        for step in steps(self, first, total):
            yield step
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()

    Run.steps = timed  # type: ignore[method-assign]
    try:
        igf.train(config)
    finally:
        Run.steps = steps  # type: ignore[method-assign]
    return seconds


def model_config(work: Work) -> GPTConfig:
    size = work.size
    return GPTConfig(
        vocab_size=size.vocab, n_positions=size.positions, n_layer=size.layers, n_head=size.heads, d_model=size.width
    )


def fresh(work: Work, folder: Path, kind: str) -> str:
    """A checkpoint with random weights: kind is "gpt" or "reward"."""
    torch.manual_seed(0)
    gpt = GPT(model_config(work))
    model = ScalarModel.from_gpt(gpt) if kind == "reward" else gpt
    path = folder / kind / "checkpoint-000000"
    save_checkpoint(
        path, model=model, tokenizer=Tokenizer.load(work.tokenizer), prompt_format="dialogue",
        stage="reward" if kind == "reward" else "sft", trainer=None,
    )
    return str(path)


def shared(output: Path, steps: int) -> dict[str, Any]:
    return {
        "output_dir": str(output / "run"), "max_steps": steps, "save_steps": ENDLESS, "progress": False,
        "device": "cpu", "learning_rate": 1e-5,
    }


def pretrain(work: Work, steps: int, output: Path) -> list[float]:
    size = work.size
    return clocked(igf.PretrainConfig(
        **shared(output, steps), data=str(work.text), tokenizer=str(work.tokenizer), model="gpt2-124m",
        n_layer=size.layers, n_head=size.heads, d_model=size.width, n_positions=size.positions,
        per_device_train_batch_size=work.pretrain_batch,
    ))


def sft(work: Work, steps: int, output: Path) -> list[float]:
    return clocked(igf.SftConfig(
        **shared(output, steps), init=fresh(work, output, "gpt"), data=str(work.demonstrations), residual_dropout=0.0,
        train_batch_size=work.sft_batch, per_device_train_batch_size=work.sft_batch,
    ))


def reward(work: Work, steps: int, output: Path) -> list[float]:
    return clocked(igf.RewardConfig(
        **shared(output, steps), init=fresh(work, output, "gpt"), data=str(work.comparisons),
        train_batch_size=work.reward_batch, per_device_train_batch_size=work.reward_batch,
    ))


def ppo(work: Work, steps: int, output: Path) -> list[float]:
    options = shared(output, steps)
    options.pop("max_steps")
    reward_model = fresh(work, output, "reward")
    minibatch = work.ppo_batch // work.ppo_minibatches
    return clocked(igf.PpoConfig(
        **options, policy=fresh(work, output, "gpt"), reward_model=reward_model, value_model=reward_model,
        prompts=str(work.prompts), total_episodes=steps * work.ppo_batch, batch_size=work.ppo_batch,
        mini_batch_size=minibatch, per_device_train_batch_size=minibatch, rollout_batch_size=work.ppo_batch,
        max_response_tokens=work.new_tokens, value_learning_rate=1e-5, ema_decay=None, missing_eos_penalty=None,
    ))


def generate(work: Work, batch: int, calls: int) -> list[float]:
    model = GPT(model_config(work)).eval()
    seconds = []
    for call in range(calls):
        torch.manual_seed(call)
        prompts = torch.randint(0, 1000, (batch, work.prompt_tokens)).tolist()
        started = time.perf_counter()
        # An id outside the vocabulary never ends a row, so every contender decodes the same number of tokens.
        drawn = sample(
            model, prompts, SamplingConfig(max_new_tokens=work.new_tokens), eos_id=-1,
            seeds=list(range(batch)), batch_size=batch,
        )
        seconds.append(time.perf_counter() - started)
        assert all(len(completion.tokens) == work.new_tokens for completion in drawn)
    return seconds
