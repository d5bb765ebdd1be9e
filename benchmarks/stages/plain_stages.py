"""The stages in plain PyTorch on the benchmark's files: loading, padding and the loop around `plain`."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.stages import plain
from benchmarks.stages.work import Work


def model(work: Work) -> plain.PlainGPT:
    size = work.size
    torch.manual_seed(0)
    return plain.PlainGPT(size.vocab, size.positions, size.layers, size.width, size.heads)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Right-padded tokens [B, T] and the lengths [B]."""
    lengths = torch.tensor([len(s) for s in sequences])
    tokens = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
    return tokens, lengths


def clock(steps: int, step: Callable[[], None]) -> list[float]:
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds


def pretrain(work: Work, steps: int, _: Path) -> list[float]:
    words = Tokenizer.from_file(str(work.tokenizer))
    stream = torch.tensor([i for row in rows(work.text) for i in words.encode(row["text"]).ids])
    length = work.size.positions
    gpt = model(work)
    optim = plain.optimizer(gpt)

    def step() -> None:
        starts = torch.randint(0, len(stream) - length - 1, (work.pretrain_batch,))
        tokens = torch.stack([stream[s : s + length + 1] for s in starts])
        plain.update(plain.token_loss(gpt, tokens, torch.ones_like(tokens, dtype=torch.bool)), optim, gpt)

    return clock(steps, step)


def sft(work: Work, steps: int, _: Path) -> list[float]:
    words = Tokenizer.from_file(str(work.tokenizer))
    data = [(words.encode(r["prompt"]).ids, words.encode(r["response"]).ids) for r in rows(work.demonstrations)]
    gpt = model(work)
    optim = plain.optimizer(gpt)
    draw = random.Random(0)

    def step() -> None:
        batch = draw.sample(data, work.sft_batch)
        tokens, lengths = padded([p + r for p, r in batch])
        places = torch.arange(tokens.shape[1])[None]
        prompts = torch.tensor([len(p) for p, _ in batch])[:, None]
        plain.update(plain.token_loss(gpt, tokens, (places >= prompts) & (places < lengths[:, None])), optim, gpt)

    return clock(steps, step)


def reward(work: Work, steps: int, _: Path) -> list[float]:
    words = Tokenizer.from_file(str(work.tokenizer))
    data = [
        ([words.encode(r["prompt"]).ids + words.encode(c).ids for c in r["completions"]], r["ranks"])
        for r in rows(work.comparisons)
    ]
    scalar = plain.PlainScalar(model(work))
    optim = plain.optimizer(scalar)
    draw = random.Random(0)

    def step() -> None:
        batch = draw.sample(data, work.reward_batch)
        tokens, lengths = padded([s for sequences, _ in batch for s in sequences])
        plain.update(plain.ranking_loss(scalar, tokens, lengths - 1, [ranks for _, ranks in batch]), optim, scalar)

    return clock(steps, step)


def ppo(work: Work, steps: int, _: Path) -> list[float]:
    words = Tokenizer.from_file(str(work.tokenizer))
    prompts = [words.encode(r["prompt"]).ids for r in rows(work.prompts)]
    policy, reference = model(work), model(work)
    scorer, value = plain.PlainScalar(model(work)), plain.PlainScalar(model(work))
    optim = plain.optimizer(policy, value)
    draw = random.Random(0)

    def step() -> None:
        batch = draw.sample(prompts, work.ppo_batch)
        length = max(map(len, batch))
        # Left padding by repetition keeps the work of a padded batch without a mask.
        tokens = torch.tensor([[p[0]] * (length - len(p)) + p for p in batch])
        plain.ppo_step(
            policy, reference, scorer, value, optim, tokens, work.new_tokens, work.ppo_batch // work.ppo_minibatches
        )

    return clock(steps, step)


def generate(work: Work, batch: int, calls: int) -> list[float]:
    gpt = model(work).eval()

    def step() -> None:
        plain.generate(gpt, torch.randint(0, 1000, (batch, work.prompt_tokens)), work.new_tokens)

    return clock(calls, step)
