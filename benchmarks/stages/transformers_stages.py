"""Pretraining with transformers' Trainer, and its `generate`, for the stage benchmarks (transformers==5.23.0)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset
from transformers import GPT2LMHeadModel, Trainer, TrainingArguments, default_data_collator

from benchmarks.stages.clock import StepClock
from benchmarks.stages.peers import ClockCallback, config, shared_arguments, tokenizer
from benchmarks.stages.work import Work


def prepare(stage: str) -> Callable[[Work, int, StepClock, Path], None]:
    """Return the stage; what it needs is imported already."""
    return {"pretrain": pretrain, "generate": generate}[stage]


def pretrain(work: Work, steps: int, clock: StepClock, output: Path) -> None:
    words = tokenizer(work)
    stream = [i for row in work.rows(work.text) for i in words(row["text"])["input_ids"]]
    length = work.size.positions
    windows = [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]
    trainer = Trainer(
        model=GPT2LMHeadModel(config(work)),
        args=TrainingArguments(**shared_arguments(work, output, work.pretrain_batch), max_steps=steps),
        train_dataset=Dataset.from_dict({"input_ids": windows, "labels": windows}), data_collator=default_data_collator,
        callbacks=[ClockCallback(clock, lambda _: work.pretrain_batch * length)],
    )
    trainer.train()


def generate(work: Work, calls: int, clock: StepClock, _: Path) -> None:
    model = GPT2LMHeadModel(config(work)).eval()
    model.generation_config.eos_token_id = None  # no id ends a row, so every contender decodes as many tokens
    generator = torch.Generator().manual_seed(work.seed)
    for _call in range(calls):
        shape = (work.generate_batch, work.prompt_tokens)
        prompts = torch.randint(0, work.size.vocab, shape, generator=generator)
        clock.begin()
        out = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, temperature=1.0,
            max_new_tokens=work.new_tokens,
        )
        clock.step_done(len(out) * (out.shape[1] - work.prompt_tokens))
