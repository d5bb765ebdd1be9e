"""The stages in plain PyTorch on the benchmark's files: loading, padding and the loop around `plain`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.stages import plain
from benchmarks.stages.clock import StepClock
from benchmarks.stages.work import Work

EOS = "<|endoftext|>"


def prepare(stage: str) -> Callable[[Work, int, StepClock, Path], None]:
    """Return the stage; what it needs is imported already."""
    return {"pretrain": pretrain, "sft": sft, "reward": reward, "ppo": ppo, "generate": generate}[stage]


def model(work: Work) -> plain.PlainGPT:
    size = work.size
    return plain.PlainGPT(size.vocab, size.positions, size.layers, size.width, size.heads)


def batches(rows: Sequence[Any], size: int, steps: int) -> Iterator[Sequence[Any]]:
    """`steps` batches of `size` rows in the order of the rows. Raises ValueError when there are not so many."""
    if len(rows) < steps * size:
        raise ValueError(f"batches: {steps} of {size} rows need {steps * size} rows, got {len(rows)}; take fewer")
    for step in range(steps):
        yield rows[step * size : (step + 1) * size]


def padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Right-padded tokens [B, T] and the lengths [B]."""
    lengths = torch.tensor([len(s) for s in sequences])
    tokens = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
    return tokens, lengths


def pretrain(work: Work, steps: int, clock: StepClock, _: Path) -> None:
    words = Tokenizer.from_file(str(work.tokenizer))
    stream = torch.tensor([i for row in work.rows(work.text) for i in words.encode(row["text"]).ids])
    length = work.size.positions
    gpt = model(work)
    optim = plain.optimizer(gpt)
    clock.begin()
    for _step in range(steps):
        starts = torch.randint(0, len(stream) - length, (work.pretrain_batch,)).tolist()
        tokens = torch.stack([stream[s : s + length] for s in starts])
        plain.token_loss(gpt, tokens, torch.ones_like(tokens, dtype=torch.bool)).backward()
        plain.apply(optim, gpt)
        clock.step_done(tokens.numel())


def sft(work: Work, steps: int, clock: StepClock, _: Path) -> None:
    words = Tokenizer.from_file(str(work.tokenizer))
    eos = words.token_to_id(EOS)
    data = [
        (words.encode(r["prompt"]).ids, [*words.encode(r["response"]).ids, eos])
        for r in work.rows_in_order(work.demonstrations)
    ]
    gpt = model(work)
    optim = plain.optimizer(gpt)
    clock.begin()
    for batch in batches(data, work.sft_batch, steps):
        tokens, lengths = padded([p + r for p, r in batch])
        places = torch.arange(tokens.shape[1])[None]
        prompts = torch.tensor([len(p) for p, _ in batch])[:, None]
        plain.token_loss(gpt, tokens, (places >= prompts) & (places < lengths[:, None])).backward()
        plain.apply(optim, gpt)
        clock.step_done(int(lengths.sum()))


def reward(work: Work, steps: int, clock: StepClock, _: Path) -> None:
    words = Tokenizer.from_file(str(work.tokenizer))
    eos = words.token_to_id(EOS)
    data = [
        ([[*words.encode(r["prompt"]).ids, *words.encode(c).ids, eos] for c in r["completions"]], r["ranks"])
        for r in work.rows_in_order(work.comparisons)
    ]
    scalar = plain.PlainScalar(model(work))
    optim = plain.optimizer(scalar)
    clock.begin()
    for batch in batches(data, work.reward_batch, steps):
        tokens, lengths = padded([s for sequences, _ in batch for s in sequences])
        plain.ranking_loss(scalar, tokens, lengths - 1, [ranks for _, ranks in batch]).backward()
        plain.apply(optim, scalar)
        clock.step_done(int(lengths.sum()))


def ppo(work: Work, steps: int, clock: StepClock, _: Path) -> None:
    words = Tokenizer.from_file(str(work.tokenizer))
    prompts = [words.encode(r["prompt"]).ids for r in work.rows_in_order(work.prompts)]
    policy, reference = model(work), model(work)
    reference.load_state_dict(policy.state_dict())
    scorer, value = plain.PlainScalar(model(work)), plain.PlainScalar(model(work))
    optim = plain.optimizer(policy, value)
    clock.begin()
    for batch in batches(prompts, work.ppo_batch, steps):
        length = max(map(len, batch))
        # Padded on the left by repetition: the work of a padded batch, without the cost of a mask.
        tokens = torch.tensor([[p[0]] * (length - len(p)) + p for p in batch])
        plain.ppo_step(policy, reference, scorer, value, optim, tokens, work.ppo_new_tokens, work.ppo_pass)
        clock.step_done(sum(map(len, batch)) + len(batch) * work.ppo_new_tokens)


def generate(work: Work, calls: int, clock: StepClock, _: Path) -> None:
    gpt = model(work).eval()
    draw = random.Random(work.seed)
    for _call in range(calls):
        shape = (work.generate_batch, work.prompt_tokens)
        prompts = torch.tensor([[draw.randrange(work.size.vocab) for _ in range(shape[1])] for _ in range(shape[0])])
        clock.begin()
        out = plain.generate(gpt, prompts, work.new_tokens)
        clock.step_done(len(out) * (out.shape[1] - work.prompt_tokens))
