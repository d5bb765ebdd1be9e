"""Text in, text out: completions of prompts by a checkpoint, at once or piece by piece."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.config import nearest
from instructgpt_fast.errors import CheckpointError, ConfigError
from instructgpt_fast.generate.engine import Engine, sample
from instructgpt_fast.generate.requests import Request
from instructgpt_fast.generate.sampling import SamplingConfig
from instructgpt_fast.model import GPT
from instructgpt_fast.tokenizer import Message, as_messages

Source = str | os.PathLike[str] | Loaded
Prompt = str | Sequence[Message] | Sequence[Mapping[str, str]]


def generate(
    source: Source, prompt: Prompt | Sequence[Prompt], *, batch_size: int = 32, **sampling: Any
) -> str | list[str]:
    """Complete a prompt, or each of a list of prompts, and return the text without its end-of-text token.

    source: a checkpoint, a run directory (its newest whole checkpoint), or what `load_model` returned.
    prompt: text or one dialogue (a list of messages), which give one text; or a list of these, which gives a list.
        Encoded as the checkpoint was trained.
    batch_size: completions decoded at the same time. sampling: the fields of `SamplingConfig`.
    Raises CheckpointError for a damaged checkpoint or one of a reward model, ConfigError for unknown or bad options,
    DataError for a prompt that is empty or longer than the context.
    """
    options = sampling_config(sampling)
    loaded, model = _language_model(source)
    one = isinstance(prompt, str) or _is_dialogue(prompt)
    several: list[Any] = [prompt] if one else list(prompt)
    tokenizer = loaded.tokenizer
    encoded = [_encode(loaded, p) for p in several]
    completions = sample(model, encoded, options, eos_id=tokenizer.eos_id, batch_size=batch_size)
    texts = [tokenizer.decode(completion.tokens, skip_special_tokens=True) for completion in completions]
    return texts[0] if one else texts


def stream(source: Source, prompt: Prompt, **sampling: Any) -> Iterator[str]:
    """Complete one prompt and yield its text piece by piece as it is drawn; joined, the pieces are `generate`'s text.

    prompt: text, or a list of messages that ends with the user's. A piece is held back while a character is
    incomplete. Arguments and errors otherwise as for `generate`; they are raised when the first piece is asked for.
    """
    options = sampling_config(sampling)
    loaded, model = _language_model(source)
    tokenizer = loaded.tokenizer
    engine = Engine(model, eos_id=tokenizer.eos_id, tokenizer=tokenizer, max_rows=1, tokens_a_look=1)
    engine.submit(Request(_encode(loaded, prompt), options))
    while engine.busy:
        for drawn in engine.step():
            if drawn.text:
                yield drawn.text


def sampling_config(options: dict[str, Any]) -> SamplingConfig:
    """Make a SamplingConfig from options by name; raises ConfigError for an unknown one, suggesting the nearest."""
    known = [field.name for field in dataclasses.fields(SamplingConfig)]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"generate: unknown option {name!r}{nearest(name, known)} The options are {', '.join(known)}."
            )
    return SamplingConfig(**options)


def _encode(loaded: Loaded, prompt: Prompt) -> list[int]:
    text = prompt if isinstance(prompt, str) else as_messages(prompt)
    return loaded.tokenizer.encode_prompt(text, loaded.prompt_format)


def _is_dialogue(prompt: Sequence[Any]) -> bool:
    return bool(prompt) and all(isinstance(item, (Message, Mapping)) for item in prompt)


def _language_model(source: Source) -> tuple[Loaded, GPT]:
    # Half-precision weights are kept: decoding reads every weight once a token.
    loaded = source if isinstance(source, Loaded) else load_model(source, device=torch.get_default_device())
    if not isinstance(loaded.model, GPT):
        raise CheckpointError(
            f"generate: {loaded.path} must hold a language model, got the scalar model of stage {loaded.stage!r}; "
            "use the checkpoint of a pretrain, sft or ppo run."
        )
    return loaded, loaded.model
