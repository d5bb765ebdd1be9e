"""The same stages through TRL's trainers and transformers' generate, for the stage benchmarks.

Needs `trl==1.12.0` (the last release with a PPO trainer) and `transformers==5.23.0`; both run unchanged on the files in `work`.
Each function returns the seconds of every optimizer step, or of every generation call.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from benchmarks.stages.work import Work


class StepClock(TrainerCallback):
    """Wall-clock seconds between the ends of consecutive optimizer steps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.started = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self.started)
        self.started = now


def tokenizer(work: Work) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_file=str(work.tokenizer), eos_token="<|endoftext|>", pad_token="<|pad|>", padding_side="left"
    )


def config(work: Work, **more: Any) -> GPT2Config:
    size = work.size
    return GPT2Config(
        vocab_size=size.vocab, n_positions=size.positions, n_embd=size.width, n_layer=size.layers, n_head=size.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **more,
    )


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shared_arguments(output: Path, steps: int, batch: int) -> dict[str, Any]:
    return {
        "output_dir": str(output), "max_steps": steps, "per_device_train_batch_size": batch, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "use_cpu": True, "learning_rate": 1e-5, "bf16": False,
        "gradient_checkpointing": False, "disable_tqdm": True,
    }


def sft(work: Work, steps: int, output: Path) -> list[float]:
    from trl import SFTConfig, SFTTrainer

    data = [{"prompt": r["prompt"], "completion": r["response"]} for r in rows(work.demonstrations)]
    clock = StepClock()
    trainer = SFTTrainer(
        model=GPT2LMHeadModel(config(work)),
        args=SFTConfig(**shared_arguments(output, steps, work.sft_batch), max_length=work.size.positions),
        train_dataset=Dataset.from_list(data), processing_class=tokenizer(work), callbacks=[clock],
    )
    trainer.train()
    return clock.seconds


def reward(work: Work, steps: int, output: Path) -> list[float]:
    """TRL knows pairs only: the C(K, 2) pairs of as many prompts as our batch holds make one step."""
    from trl import RewardConfig, RewardTrainer

    pairs, batch = [], 0
    for index, row in enumerate(rows(work.comparisons)):
        ranked = sorted(zip(row["ranks"], row["completions"], strict=True))
        mine = [
            {"prompt": row["prompt"], "chosen": better, "rejected": worse}
            for position, (_, better) in enumerate(ranked) for _, worse in ranked[position + 1 :]
        ]
        batch += len(mine) if index < work.reward_batch else 0
        pairs += mine
    clock = StepClock()
    models = GPT2ForSequenceClassification(config(work, num_labels=1, pad_token_id=tokenizer(work).pad_token_id))
    trainer = RewardTrainer(
        model=models, args=RewardConfig(**shared_arguments(output, steps, batch), max_length=work.size.positions),
        train_dataset=Dataset.from_list(pairs), processing_class=tokenizer(work), callbacks=[clock],
    )
    trainer.train()
    return clock.seconds


def ppo(work: Work, steps: int, output: Path) -> list[float]:
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    words = tokenizer(work)
    head = config(work, num_labels=1, pad_token_id=words.pad_token_id)
    arguments = shared_arguments(output, -1, work.ppo_batch // work.ppo_minibatches)
    arguments.pop("max_steps")
    clock = StepClock()
    prompts = [{"input_ids": words(r["prompt"])["input_ids"]} for r in rows(work.prompts)]
    trainer = PPOTrainer(
        args=PPOConfig(
            **arguments, total_episodes=steps * work.ppo_batch, gradient_accumulation_steps=work.ppo_minibatches,
            num_mini_batches=1, num_ppo_epochs=1, response_length=work.new_tokens, temperature=1.0,
            local_rollout_forward_batch_size=work.ppo_batch, num_sample_generations=0, kl_coef=0.02,
            missing_eos_penalty=None, stop_token="eos",
        ),
        processing_class=words, model=GPT2LMHeadModel(config(work)), ref_model=GPT2LMHeadModel(config(work)),
        reward_model=GPT2ForSequenceClassification(head), value_model=GPT2ForSequenceClassification(head),
        train_dataset=Dataset.from_list(prompts), callbacks=[clock],
    )
    trainer.train()
    return clock.seconds


def generate(work: Work, batch: int, calls: int) -> list[float]:
    model = GPT2LMHeadModel(config(work)).eval()
    seconds = []
    for call in range(calls):
        torch.manual_seed(call)
        prompts = torch.randint(0, 1000, (batch, work.prompt_tokens))
        started = time.perf_counter()
        out = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, temperature=1.0,
            min_new_tokens=work.new_tokens, max_new_tokens=work.new_tokens, pad_token_id=0,
        )
        seconds.append(time.perf_counter() - started)
        assert out.shape[1] == work.prompt_tokens + work.new_tokens
    return seconds
