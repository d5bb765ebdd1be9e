"""Writes the files that every contender reads, from the prose that travels with the package."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.stages.work import Size, Work, order_path
from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.data import Order
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.quickstart import assets
from instructgpt_fast.quickstart.tasks import sentences
from instructgpt_fast.tokenizer import Tokenizer

K = (2, 6)  # answers to rank: pairs, where every trainer does the same work, and the paper's K
DOCUMENTS = 150
COMPARISONS = 600
PPO_WORDS = range(15, 26)


def gpt_config(size: Size) -> GPTConfig:
    return GPTConfig(
        vocab_size=size.vocab, n_positions=size.positions, n_layer=size.layers, n_head=size.heads, d_model=size.width
    )


def write_work(work: Work, *, documents: int = DOCUMENTS, corpora: Sequence[str] = tuple(assets.CORPORA)) -> None:
    """Tokenizer with exactly size.vocab entries, text, demonstrations, comparisons, prompts, random checkpoints.

    Demonstrations: a prompt of 1-3 sentences with an answer of 1-6, so lengths are as ragged as in real data. Answers
    to rank are drawn from other demonstrations. A folder that is complete is left as it is.
    """
    done = work.folder / "complete"
    if done.exists():
        return
    work.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _write_tokenizer(work, corpora)
    chapters = assets.corpus(("austen",))[:documents]
    _write_rows(work.text, ({"text": chapter.text} for chapter in chapters))
    paragraphs = [sentences(line) for chapter in chapters for line in chapter.text.split("\n")]
    pairs = _pairs(paragraphs, tokenizer, work.size.positions)
    _write_ordered(work.demonstrations, [{"prompt": p, "response": a} for p, a in pairs], work.seed)
    draw = random.Random(work.seed)
    answers = [answer for _, answer in pairs]
    for k in K:
        rows = [
            {"prompt": p, "completions": draw.sample(answers, k), "ranks": draw.sample(range(1, k + 1), k)}
            for p, _ in pairs[:COMPARISONS]
        ]
        _write_ordered(Work(work.size, work.folder, answers=k).comparisons, rows, work.seed)
    prompts = [{"prompt": p} for p, _ in pairs if len(p.split()) in PPO_WORDS]
    _write_ordered(work.prompts, prompts, work.seed)
    _write_checkpoints(work, tokenizer)
    done.write_text("", encoding="utf-8")


def _pairs(paragraphs: Iterable[Sequence[str]], tokenizer: Tokenizer, positions: int) -> list[tuple[str, str]]:
    """(prompt, answer), any of which fit the context together; an answer begins with the space before it."""
    draw = random.Random(0)
    pairs = []
    for parts in paragraphs:
        cut, length = draw.randint(1, 3), draw.randint(1, 6)
        prompt, answer = " ".join(parts[:cut]), " " + " ".join(parts[cut : cut + length])
        short = len(tokenizer.encode(prompt)) <= positions // 4 and len(tokenizer.encode(answer)) < positions // 2
        if parts[cut:] and short:
            pairs.append((prompt, answer))
    draw.shuffle(pairs)
    return pairs


def _write_tokenizer(work: Work, corpora: Sequence[str]) -> Tokenizer:
    # Rare merges count too: without them the prose that travels with the package gives 49,324 tokens, not 50,257.
    texts = (document.text for document in assets.corpus(corpora))
    tokenizer = Tokenizer.train(texts, work.size.vocab, min_frequency=1)
    if tokenizer.vocab_size != work.size.vocab:
        raise SystemExit(
            f"write_work: the prose must give {work.size.vocab} tokens, got {tokenizer.vocab_size}; ask for fewer"
        )
    tokenizer.save(work.tokenizer)
    return tokenizer


def _write_checkpoints(work: Work, tokenizer: Tokenizer) -> None:
    """Random weights: what a step costs does not depend on what the model knows."""
    torch.manual_seed(work.seed)
    gpt = GPT(gpt_config(work.size))
    for path, model, stage in ((work.policy, gpt, "sft"), (work.scorer, ScalarModel.from_gpt(gpt), "reward")):
        save_checkpoint(path / "checkpoint-000000", model=model, tokenizer=tokenizer, prompt_format="raw", stage=stage)


def _write_ordered(path: Path, rows: Sequence[Mapping[str, Any]], seed: int) -> None:
    _write_rows(path, rows)
    order_path(path).write_text(json.dumps(Order(len(rows), seed).take(len(rows))), encoding="utf-8")


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
