"""Answers sampled from a model and ranked by the labelers: the comparisons that a reward model learns from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from instructgpt_fast.generate import SamplingConfig, sample
from instructgpt_fast.quickstart.labelers import RATERS, Labelers
from instructgpt_fast.rlhf.rollout import episode_seeds
from instructgpt_fast.train.progress import Progress

ANSWERS = range(4, 10)  # K = 4..9 (Ouyang et al. 2022, section 3.5)
PROMPTS_AT_ONCE = 40  # about 260 answers: enough to fill the decoder, few enough for a lively progress bar


@dataclass(frozen=True)
class Sampler:
    """Draws K answers to each prompt from one loaded checkpoint."""

    loaded: Any
    answer_tokens: int
    seed: int

    def answers(self, prompts: Sequence[str], counts: Sequence[int], first: int) -> list[list[str]]:
        """`counts[i]` answers to `prompts[i]`, as text; `first` is the number of the first answer in the whole draw."""
        tokenizer = self.loaded.tokenizer
        repeated = [
            tokenizer.encode_prompt(prompt, self.loaded.prompt_format)
            for prompt, count in zip(prompts, counts, strict=True) for _ in range(count)
        ]
        completions = sample(
            self.loaded.model, repeated, SamplingConfig(max_new_tokens=self.answer_tokens), eos_id=tokenizer.eos_id,
            seeds=episode_seeds(self.seed, first, len(repeated)), batch_size=256, tokenizer=tokenizer,
        )
        texts = iter([completion.text for completion in completions])
        return [[next(texts) for _ in range(count)] for count in counts]


def ranked_answers(
    sampler: Sampler, prompts: Sequence[str], labelers: Labelers, *, name: str, progress: bool = True
) -> list[dict[str, Any]]:
    """Rows {"prompt", "completions", "ranks", "labeler"}: K = 4..9 answers to each prompt, ranked by one drawn labeler.

    Empty answers are left out, and prompts with fewer than two others.
    name: what the progress bar shows.
    """
    draw = random.Random(sampler.seed)
    bar = Progress(name, enabled=progress, unit="answers")
    bar.start(0, -(-len(prompts) // PROMPTS_AT_ONCE))
    rows: list[dict[str, Any]] = []
    drawn = 0
    try:
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            some = prompts[start : start + PROMPTS_AT_ONCE]
            counts = [draw.choice(ANSWERS) for _ in some]
            for prompt, completions in zip(some, sampler.answers(some, counts, drawn), strict=True):
                labeler = draw.randrange(RATERS)
                # A young model may end an answer before its first word; there is nothing to rank in that.
                texts = [text for text in completions if text]
                if len(texts) < 2:
                    continue
                ranks = labelers.rank(texts, labeler)
                rows.append({"prompt": prompt, "completions": texts, "ranks": ranks, "labeler": labeler})
            drawn += sum(counts)
            bar.advance(sum(counts))
    finally:
        bar.stop()
    return rows


def with_seed(sampler: Sampler, seed: int) -> Sampler:
    """The same sampler with other draws."""
    return replace(sampler, seed=seed)
