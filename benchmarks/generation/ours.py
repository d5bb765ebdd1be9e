"""Our engine as a contender of the generation benchmarks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.generation.load import Load
from benchmarks.generation.weights import EOS, our_model
from benchmarks.stages.work import Size
from instructgpt_fast.generate import Engine, SamplingConfig
from instructgpt_fast.generate.requests import Request
from instructgpt_fast.model import GPT
from instructgpt_fast.rlhf.rollout import collect, rollout_engine

NEVER = -1  # no id ends an answer


def requests(load: Load, vocab: int, call: int = 0) -> list[Request]:
    """The load's requests; each has its seed, which depends on the call."""
    temperature = 1.0 if load.sampled else 0.0
    return [
        Request(prompt, SamplingConfig(max_new_tokens=limit, temperature=temperature), seeds=[call * load.requests + i])
        for i, (prompt, limit) in enumerate(zip(load.prompts(vocab), load.limits(), strict=True))
    ]


def room(load: Load) -> int:
    """Cache tokens for `rows` of the longest requests, each rounded up to whole pages."""
    return load.rows * (-(-(load.prompt_tokens[1] + load.new_tokens[1]) // 16) * 16)


class Ours:
    """A new engine for every call of `generate`: nothing is kept from the call before."""

    def __init__(self, weights: Path, size: Size) -> None:
        self.size = size
        self.model: GPT = our_model(weights, size)
        self._engine: Engine | None = None

    def generate(self, load: Load, call: int) -> tuple[float, list[list[int]]]:
        """Seconds of one call and the tokens of every request."""
        wanted = requests(load, self.size.vocab, call)
        started = time.perf_counter()
        engine = Engine(self.model, eos_id=NEVER, max_rows=load.rows, cache_tokens=room(load))
        drawn = engine.run(wanted)
        seconds = time.perf_counter() - started
        return seconds, [list(answers[0].tokens) for answers in drawn]

    def rollout(self, load: Load, call: int) -> tuple[float, list[list[int]]]:
        """Seconds of one rollout and the tokens of every answer, EOS included where it was drawn."""
        prompts, first = load.prompts(self.size.vocab), call * load.requests
        sampling = SamplingConfig(max_new_tokens=load.new_tokens[1])
        if self._engine is None:  # the trainer makes one for its whole run
            longest = load.prompt_tokens[1] + load.new_tokens[1]
            self._engine = rollout_engine(self.model, eos_id=EOS, batch_size=load.rows, most_tokens=longest)
        started = time.perf_counter()
        drawn = collect(
            self.model, prompts, sampling, eos_id=EOS, seeds=range(first, first + load.requests), batch_size=load.rows,
            engine=self._engine,
        )
        return time.perf_counter() - started, [list(answer) for answer in drawn.responses]

    @torch.no_grad()
    def gap(self, tokens: Sequence[int], one: int, other: int) -> float:
        """How far apart the logits of two ids are after these tokens, with all products in float64."""
        model = self.model
        hidden = model(torch.tensor([list(tokens)]))[0, -1].double()
        return float((hidden @ (model.lm_weight[one] - model.lm_weight[other]).double()).abs())
