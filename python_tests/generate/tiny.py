"""A small model that talks, prompts for it, and the completion that a request has when nothing runs beside it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from instructgpt_fast.generate import Completion, Engine, Request
from instructgpt_fast.model import GPT, GPTConfig

from ..model.reference import SMALL, random_gpt

EOS = 3


def prompts_of(count: int, seed: int = 0, longest: int = 20) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return [torch.randint(SMALL.vocab_size, (n,), generator=generator).tolist() for n in lengths]


def talkative(config: GPTConfig = SMALL, seed: int = 0) -> GPT:
    """A model whose distribution is neither flat nor a spike, with the end of text at about one token in ten."""
    model = random_gpt(config, seed=seed)
    with torch.no_grad():
        model.ln_f.weight.mul_(1.5)
        # The first hidden number is made a constant 5, through which the end of text gets a fixed bonus of 2.5.
        model.ln_f.weight[0] = 0.0
        model.ln_f.bias[0] = 5.0
        model.wte.weight[EOS, 0] = 0.5
    return model


class Alone:
    """Completions drawn one at a time by an engine that shares nothing and runs each prompt at once."""

    def __init__(self, model: GPT, eos_id: int = EOS) -> None:
        self._engine = Engine(model, eos_id=eos_id, max_rows=1, share_prefixes=False, prefill_tokens=10**6)
        self._known = functools.cache(self._complete)

    def completions(self, request: Request) -> list[Completion]:
        assert request.seeds is not None
        return [self._known(tuple(request.prompt), request.sampling, seed) for seed in request.seeds]

    def _complete(self, prompt: Sequence[int], sampling: object, seed: int) -> Completion:
        return self._engine.run([Request(prompt, sampling, seeds=(seed,))])[0][0]  # type: ignore[arg-type]
