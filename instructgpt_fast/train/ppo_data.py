"""The data of a PPO run: prompts to answer, pretraining windows to mix in, demonstrations to check the scores on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from instructgpt_fast.checkpoint import Loaded
from instructgpt_fast.data import Demonstration, Order, Prompt, TokenWindows, read_jsonl
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.rlhf.batch import padded_mask
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.train.loop import Run
from instructgpt_fast.train.text import open_text

if TYPE_CHECKING:
    from instructgpt_fast.train.ppo import PpoConfig

__all__ = ["Prompts", "PtxWindows", "read_demonstrations", "read_prompts", "read_ptx"]


@dataclass
class Prompts:
    """Encoded prompts in an endless shuffled order."""

    tokens: list[list[int]]
    order: Order

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(map(len, self.tokens))

    def take(self, count: int) -> list[list[int]]:
        """The next `count` prompts; every prompt comes once before any comes again."""
        return [self.tokens[index] for index in self.order.take(count)]


@dataclass
class PtxWindows:
    """Windows of pretraining text in an endless shuffled order."""

    windows: TokenWindows
    order: Order
    device: torch.device

    def take(self, count: int) -> Tensor:
        """The next `count` windows: int64 [count, length]."""
        return self.windows.batch(self.order.take(count)).to(self.device)


def read_prompts(config: PpoConfig, run: Run, loaded: Loaded, context: int) -> Prompts:
    """Read and encode the prompts, leaving room for the response in `context` tokens.

    Raises DataError with file and line for a prompt that is empty or too long (unless on_overlong is "skip"), and when
    none is left; ConfigError when the response alone fills the context.
    """
    limit = min(config.max_prompt_tokens, context - config.max_response_tokens)
    if limit < 1:
        raise ConfigError(
            f"PpoConfig: max_response_tokens must leave room for a prompt in the context of {context} tokens that all "
            f"models share, got {config.max_response_tokens}; lower it."
        )
    examples = read_jsonl(config.prompts, Prompt, on_bad_line=config.on_bad_line)
    encoded: list[list[int]] = []
    overlong = 0
    for index, example in enumerate(examples):
        tokens = loaded.tokenizer.encode_prompt(example.prompt, loaded.prompt_format)
        if len(tokens) <= limit:
            encoded.append(tokens)
        elif config.on_overlong == "skip":
            overlong += 1
        else:
            raise examples.error(
                index, f"the prompt must have at most {limit} tokens (max_prompt_tokens {config.max_prompt_tokens}; "
                f"{config.max_response_tokens} of the context of {context} are the response's), got {len(tokens)}; "
                "shorten it, or leave such prompts out with on_overlong='skip'",
            )
    if examples.skipped or overlong:
        run.say(f"{config.prompts}: left out {len(examples.skipped)} lines that cannot be read, {overlong} too long")
    if not encoded:
        raise DataError(f"prompts: one at least must fit {limit} tokens, got none of {overlong}", config.prompts)
    return Prompts(encoded, Order(len(encoded), config.seed))


def read_ptx(config: PpoConfig, run: Run, loaded: Loaded) -> PtxWindows | None:
    """Open the pretraining text in windows; None for plain PPO. Raises DataError, ConfigError."""
    if config.ptx_data is None:
        return None
    context = loaded.model.config.n_positions
    length = config.ptx_length or context
    if length > context:
        raise ConfigError(f"PpoConfig: ptx_length must fit the policy's context of {context}, got {length}; lower it.")
    tokens = open_text(run, config.ptx_data, loaded.tokenizer, name="ptx", on_bad_line=config.on_bad_line)
    windows = TokenWindows(tokens, length)
    return PtxWindows(windows, Order(len(windows), config.seed), run.device)


def read_demonstrations(config: PpoConfig, run: Run, loaded: Loaded, context: int) -> Rollout | None:
    """Read the demonstrations that the reward model should score 0 on average; None when none are given.

    Those that do not fit the models' context are left out and counted, as they take no part in training.
    """
    if config.demonstrations is None:
        if config.check_invariants and config.reward_model is not None:
            run.say("mean score of the demonstrations: not checked, as no demonstrations are given")
        return None
    examples = read_jsonl(config.demonstrations, Demonstration, on_bad_line=config.on_bad_line)
    prompts: list[list[int]] = []
    responses: list[list[int]] = []
    for example in examples:
        prompt = loaded.tokenizer.encode_prompt(example.prompt, loaded.prompt_format)
        response = [*loaded.tokenizer.encode(example.response), loaded.tokenizer.eos_id]
        if len(prompt) + len(response) <= context:
            prompts.append(prompt)
            responses.append(response)
    if len(prompts) < len(examples):
        run.say(f"{config.demonstrations}: left out {len(examples) - len(prompts)} longer than {context} tokens")
    if not prompts:
        raise DataError(f"demonstrations: at least one must fit {context} tokens, got none", config.demonstrations)
    mask = padded_mask([len(response) for response in responses], run.device)
    finished = torch.ones(len(prompts), dtype=torch.bool, device=run.device)
    return Rollout(prompts, responses, finished, mask, torch.zeros(mask.shape, device=run.device))
