"""SFT, reward modelling and PPO with TRL's trainers, for the stage benchmarks (trl==1.12.0, which still has PPO)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel

from benchmarks.stages.clock import StepClock
from benchmarks.stages.peers import ClockCallback, config, shared_arguments, tokenizer
from benchmarks.stages.work import Work

HOMES = {
    "sft": "trl.trainer.sft_trainer", "reward": "trl.trainer.reward_trainer", "ppo": "trl.experimental.ppo.ppo_trainer",
}


def prepare(stage: str) -> Callable[[Work, int, StepClock, Path], None]:
    """Import the stage's trainer and return the stage."""
    importlib.import_module(HOMES[stage])
    return {"sft": sft, "reward": reward, "ppo": ppo}[stage]


def sums(lengths: Sequence[int], batch: int) -> Callable[[int], int]:
    """Tokens of each step over rows of these lengths, taken in order."""
    return lambda step: sum(lengths[step * batch : (step + 1) * batch])


def sft(work: Work, steps: int, clock: StepClock, output: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    rows = work.rows_in_order(work.demonstrations)
    trainer = SFTTrainer(
        model=GPT2LMHeadModel(config(work)),
        args=SFTConfig(
            **shared_arguments(work, output, work.sft_batch), max_steps=steps, max_length=work.size.positions
        ),
        train_dataset=Dataset.from_list([{"prompt": r["prompt"], "completion": r["response"]} for r in rows]),
        processing_class=tokenizer(work),
    )
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    trainer.add_callback(ClockCallback(clock, sums(lengths, work.sft_batch)))
    trainer.train()


def reward(work: Work, steps: int, clock: StepClock, output: Path) -> None:
    """TRL knows pairs only: the C(K, 2) pairs of as many prompts as our batch holds make one step.

    A pass holds as many sequences as ours. Tokens count each answer once, as it is one labeled answer however many
    pairs it is in; TRL runs each of them K - 1 times.
    """
    from trl import RewardConfig, RewardTrainer

    pairs = [pair for row in work.rows_in_order(work.comparisons) for pair in pairs_of(row)]
    a_step = work.reward_batch * work.answers * (work.answers - 1) // 2
    a_pass = work.pass_sequences // 2
    trainer = RewardTrainer(
        model=GPT2ForSequenceClassification(config(work, num_labels=1)),
        args=RewardConfig(
            **shared_arguments(work, output, a_pass, a_step // a_pass), max_steps=steps, max_length=work.size.positions
        ),
        train_dataset=Dataset.from_list(pairs), processing_class=tokenizer(work),
    )
    data = trainer.train_dataset
    lengths = [len(a) + len(b) for a, b in zip(data["chosen_ids"], data["rejected_ids"], strict=True)]
    of_step = sums(lengths, a_step)
    trainer.add_callback(ClockCallback(clock, lambda step: of_step(step) // (work.answers - 1)))
    trainer.train()


def pairs_of(row: dict[str, Any]) -> list[dict[str, str]]:
    """The C(K, 2) pairs of one prompt."""
    ranked = [text for _, text in sorted(zip(row["ranks"], row["completions"], strict=True))]
    return [
        {"prompt": row["prompt"], "chosen": better, "rejected": worse}
        for place, better in enumerate(ranked) for worse in ranked[place + 1 :]
    ]


def ppo(work: Work, steps: int, clock: StepClock, output: Path) -> None:
    """One optimizer step an iteration; TRL draws its prompts in an order of its own."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    words = tokenizer(work)
    drawn: list[int] = []
    draw = ppo_trainer.batch_generation

    def counted(model: Any, queries: torch.Tensor, *rest: Any) -> Any:
        out = draw(model, queries, *rest)
        answers = out[0][:, queries.shape[1] :] == words.eos_token_id
        ends = torch.where(answers.any(1), answers.int().argmax(1) + 1, answers.shape[1])
        drawn.append(int((queries != words.pad_token_id).sum() + ends.sum()))
        return out

    ppo_trainer.batch_generation = counted
    passes = work.ppo_batch // work.ppo_pass
    arguments = shared_arguments(work, output, work.ppo_pass, passes)
    arguments.pop("train_sampling_strategy")
    trainer = PPOTrainer(
        args=PPOConfig(
            **arguments, total_episodes=steps * work.ppo_batch, num_mini_batches=1, num_ppo_epochs=1,
            response_length=work.ppo_new_tokens, temperature=1.0, local_rollout_forward_batch_size=work.ppo_batch,
            num_sample_generations=0, kl_coef=0.02, missing_eos_penalty=None, stop_token="eos",
        ),
        processing_class=words, model=GPT2LMHeadModel(config(work)), ref_model=GPT2LMHeadModel(config(work)),
        reward_model=GPT2ForSequenceClassification(config(work, num_labels=1)),
        value_model=GPT2ForSequenceClassification(config(work, num_labels=1)),
        train_dataset=Dataset.from_list([words(r["prompt"]) for r in work.rows(work.prompts)]),
        callbacks=[ClockCallback(clock, drawn.__getitem__)],
    )
    trainer.train()
