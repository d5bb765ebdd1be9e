"""Writes the files that every contender reads, from the prose that travels with the package."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.stages.work import Size, Work
from instructgpt_fast.quickstart import assets
from instructgpt_fast.quickstart.tasks import sentences
from instructgpt_fast.tokenizer import Tokenizer

ANSWERS = 6  # K of every comparison
DOCUMENTS = 150


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_work(folder: Path, vocab: int) -> Work:
    """Tokenizer with exactly `vocab` entries, pretraining text, demonstrations, comparisons and prompts.

    Demonstrations: a prompt of 1-3 sentences with an answer of 1-6, so lengths are as ragged as in real data.
    """
    work = Work(Size(vocab), folder)
    folder.mkdir(parents=True, exist_ok=True)
    documents = assets.corpus(tuple(assets.CORPORA))
    tokenizer = Tokenizer.train((d.text for d in documents), vocab)
    if tokenizer.vocab_size != vocab:
        raise SystemExit(f"the corpus gives a vocabulary of {tokenizer.vocab_size}, not {vocab}: choose a smaller one")
    tokenizer.save(work.tokenizer)
    draw = random.Random(0)
    austen = assets.corpus(("austen",))[:DOCUMENTS]
    write_jsonl(work.text, ({"text": d.text} for d in austen))
    paragraphs = [sentences(p) for d in austen for p in d.text.split("\n")]
    pairs = []
    for parts in paragraphs:
        cut = draw.randint(1, 3)
        answer = " ".join(parts[cut : cut + draw.randint(1, 6)])
        prompt = " ".join(parts[:cut])
        if answer and len(prompt.split()) <= 90 and len(answer.split()) <= 160:
            pairs.append((prompt, answer))
    draw.shuffle(pairs)
    write_jsonl(work.demonstrations, ({"prompt": p, "response": a} for p, a in pairs))
    answers = [a for _, a in pairs]
    write_jsonl(work.comparisons, (
        {"prompt": p, "completions": draw.sample(answers, ANSWERS), "ranks": draw.sample(range(1, ANSWERS + 1), ANSWERS)}
        for p, _ in pairs[:600]
    ))
    prompts = [p for p, _ in pairs if 15 <= len(p.split()) <= 25]
    write_jsonl(work.prompts, ({"prompt": p} for p in prompts))
    return work
