"""transformers' two ways to generate, and TRL's rollout, as contenders (transformers==5.23.0, trl==1.12.0)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from benchmarks.generation.load import Load
from benchmarks.generation.weights import EOS, PAD, transformers_model
from benchmarks.stages.work import Size

PAGE = 32


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] and their attention mask, padding before the prompts."""
    longest = max(map(len, prompts))
    tokens = torch.full((len(prompts), longest), PAD)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[longest - len(prompt) :] = torch.tensor(prompt)
    return tokens, (torch.arange(longest) >= torch.tensor([[longest - len(p)] for p in prompts])).long()


class Transformers:
    """`generate` on one batch after the other, each padded to its longest prompt and run to its longest answer."""

    def __init__(self, weights: Path, size: Size) -> None:
        self.size = size
        self.model = transformers_model(weights, size)
        self.model.generation_config.eos_token_id = None  # no id ends an answer

    def generate(self, load: Load, call: int) -> tuple[float, list[list[int]]]:
        """Seconds of one call and the tokens of every request."""
        prompts, limits = load.prompts(self.size.vocab), load.limits()
        draw = {"do_sample": True, "top_k": 0, "temperature": 1.0} if load.sampled else {"do_sample": False}
        torch.manual_seed(call)
        drawn = []
        started = time.perf_counter()
        for first in range(0, load.requests, load.rows):
            batch, longest = prompts[first : first + load.rows], max(limits[first : first + load.rows])
            tokens, mask = left_padded(batch)
            out = self.model.generate(tokens, attention_mask=mask, **draw, max_new_tokens=longest, pad_token_id=PAD)
            drawn += out[:, tokens.shape[1] :].tolist()
        seconds = time.perf_counter() - started
        return seconds, [row[:limit] for row, limit in zip(drawn, limits, strict=True)]


class Continuous:
    """The continuous batching of transformers, each request with its own limit; starting it is not counted."""

    def __init__(self, weights: Path, size: Size) -> None:
        self.size = size
        self.model = transformers_model(weights, size)
        self.model.set_attn_implementation("sdpa")
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)  # it warns of missing GPU tools

    def generate(self, load: Load, call: int) -> tuple[float, list[list[int]]]:
        """Seconds from the first request to the last answer, and the tokens of every request."""
        prompts, limits = load.prompts(self.size.vocab), load.limits()
        draw = {"do_sample": True, "top_k": 0, "temperature": 1.0} if load.sampled else {"do_sample": False}
        longest = -(-(load.prompt_tokens[1] + load.new_tokens[1]) // PAGE)
        # Without sizes of its own it takes most of the machine's memory, and is ten times slower for it.
        sizes = ContinuousBatchingConfig(
            page_size=PAGE, num_blocks=load.rows * longest, max_batch_tokens=512, max_requests_per_batch=load.rows,
            seed=call,
        )
        shape = GenerationConfig(max_new_tokens=max(limits), eos_token_id=-1, pad_token_id=PAD, **draw)
        found: dict[str, list[int]] = {}
        with self.model.continuous_batching_context_manager(
            generation_config=shape, continuous_batching_config=sizes, warmup=False, block=True
        ) as manager:
            started = time.perf_counter()
            names = [manager.add_request(p, max_new_tokens=n) for p, n in zip(prompts, limits, strict=True)]
            while len(found) < len(names):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    found[result.request_id] = list(result.generated_tokens)
                elif result is None and not manager.is_running():
                    raise SystemExit("transformers' continuous batching stopped before its last answer")
            seconds = time.perf_counter() - started
        return seconds, [found[name] for name in names]


class Trl:
    """What TRL's PPO trainer does for its rollouts: `batch_generation`, which also keeps the logits of every token.

    Log-probabilities come after it in the trainer and are not counted here; ours come with the answers.
    """

    def __init__(self, weights: Path, size: Size) -> None:
        from trl.experimental.ppo.ppo_trainer import batch_generation

        self.size = size
        self.model = transformers_model(weights, size)
        self.model.generation_config.eos_token_id = EOS  # as the trainer sets it with stop_token="eos"
        self._batch_generation = batch_generation

    def rollout(self, load: Load, call: int) -> tuple[float, list[list[int]]]:
        """Seconds of one rollout and the tokens of every answer, EOS included where it was drawn."""
        torch.manual_seed(call)
        drawing = GenerationConfig(
            max_new_tokens=load.new_tokens[1], temperature=1.0 + 1e-7, top_k=0, top_p=1.0, do_sample=True
        )
        prompts = load.prompts(self.size.vocab)
        started = time.perf_counter()
        queries, _ = left_padded(prompts)
        out, _ = self._batch_generation(self.model, queries, load.rows, PAD, drawing)
        seconds = time.perf_counter() - started
        return seconds, [until_end(row) for row in out[:, queries.shape[1] :].tolist()]


def until_end(answer: Sequence[int]) -> list[int]:
    """An answer up to its EOS."""
    return list(answer[: answer.index(EOS) + 1]) if EOS in answer else list(answer)
