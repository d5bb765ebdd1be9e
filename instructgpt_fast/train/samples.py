"""Answers that a language model gives to fixed prompts before and after training, kept in samples.jsonl.

No random state is touched: an answer's draws are a function of its seed alone.
Not covered: PPO's samples, which its models judge token by token (ppo_samples.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from instructgpt_fast.generate import SamplingConfig, default_seeds, sample
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train.loop import Run, Training
from instructgpt_fast.train.records import Sample

__all__ = ["Answers", "pieces_of", "rounded"]

LONGEST = 64  # tokens of an answer [O]: enough to see what changed, and seconds at most for four of them
DIGITS = 6  # significant ones of a recorded number


@dataclass(frozen=True)
class Answers:
    """Prompts as token ids, and the run that keeps the answers to the first record_samples of them."""

    run: Run
    training: Training
    prompts: Sequence[list[int]]

    def record(self, step: int) -> None:
        """Answer the prompts at temperature 1, without dropout, and append the answers; a failure is told."""
        prompts = [list(prompt) for prompt in self.prompts[:self.run.config.record_samples]]
        room = min(LONGEST, self.training.model.config.n_positions - max(map(len, prompts), default=0))
        if not prompts or room < 1 or step in self.run.samples.steps:
            return
        with self.run.aside(f"the samples of step {step}"):
            self.run.samples.write(self._drawn(step, prompts, room))

    def _drawn(self, step: int, prompts: Sequence[list[int]], room: int) -> list[Sample]:
        model, tokenizer = self.training.model, self.training.tokenizer
        seeds = default_seeds(self.run.config.seed, len(prompts))
        was_training = model.training
        model.eval()
        sampling = SamplingConfig(max_new_tokens=room, temperature=1.0)
        try:
            drawn = sample(
                model, prompts, sampling, eos_id=tokenizer.eos_id, seeds=seeds, batch_size=len(prompts)
            )
        finally:
            model.train(was_training)
        return [
            Sample(
                step=step, prompt=tokenizer.decode(prompt, skip_special_tokens=True), seed=seed,
                tokens=pieces_of(tokenizer, answer.tokens), token_ids=list(answer.tokens),
                logprobs=rounded(answer.logprobs), finished=answer.finished,
            )
            for prompt, seed, answer in zip(prompts, seeds, drawn, strict=True)
        ]


def pieces_of(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """One piece of text a token, which joined are the text; special tokens give the empty piece."""
    stream = tokenizer.text_stream()
    pieces = [stream.push(token) for token in tokens]
    if pieces:
        pieces[-1] += stream.finish()
    return pieces


def rounded(values: Tensor | Sequence[float]) -> list[float]:
    """Numbers with six significant digits, which is more than float32 agrees on between two machines."""
    plain = values.tolist() if isinstance(values, Tensor) else values
    return [float(f"{value:.{DIGITS}g}") for value in plain]
