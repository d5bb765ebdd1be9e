"""Text in, text out: completions of prompts by a checkpoint, at once or piece by piece."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.config import nearest
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.generate.beam import beam_search
from instructgpt_fast.generate.engine import Engine, sample
from instructgpt_fast.generate.requests import Request, check_prompt
from instructgpt_fast.generate.sampling import Completion, SamplingConfig
from instructgpt_fast.model import GPT
from instructgpt_fast.tokenizer import Message, Tokenizer, as_messages
from instructgpt_fast.tokenizer.few_shot import Examples, FewShot, as_few_shot

Source = str | os.PathLike[str] | Loaded
Prompt = str | Sequence[Message] | Sequence[Mapping[str, str]]


def generate(
    source: Source,
    prompt: Prompt | Sequence[Prompt],
    *,
    examples: Examples | None = None,
    n: int = 1,
    batch_size: int = 32,
    **sampling: Any,
) -> Any:
    """Complete a prompt, or each of a list of prompts, and return the text without its end.

    source: a checkpoint, a run directory (its newest whole checkpoint), a Hugging Face folder, or what `load_model`
        returned.
    prompt: text or one dialogue (a list of messages); or a list of these. Encoded as the checkpoint was trained.
    examples: solved examples before every prompt: pairs (x, y), or a `FewShot`. Unless `stop` is given, a model of
        plain text then stops at the separator of the examples.
    n: completions of each prompt; with num_beams the n best of one search.
    batch_size: completions decoded at the same time. sampling: the fields of `SamplingConfig`.

    Returns one text for one prompt, a list for a list of prompts; with n > 1, a list of n texts in place of each text.
    Raises CheckpointError for a damaged checkpoint or one of a reward model, ConfigError for unknown or bad options,
    DataError for a prompt that is empty or longer than the context, TrainingError for logits that are NaN.
    """
    one, found = _complete(source, prompt, examples, n, batch_size, 0, sampling)
    texts = [[completion.text for completion in several] for several in found]
    return _shaped(texts, one, n)


def complete(
    source: Source,
    prompt: Prompt | Sequence[Prompt],
    *,
    examples: Examples | None = None,
    n: int = 1,
    batch_size: int = 32,
    top_logprobs: int = 0,
    **sampling: Any,
) -> Any:
    """As `generate`, but return each answer as a `Completion`: tokens, log-probabilities, why it ended, and text.

    top_logprobs: likeliest tokens told beside each drawn one; not with num_beams.
    """
    one, found = _complete(source, prompt, examples, n, batch_size, top_logprobs, sampling)
    return _shaped(found, one, n)


def stream(
    source: Source,
    prompt: Prompt,
    *,
    examples: Examples | None = None,
    engine: Engine | None = None,
    **sampling: Any,
) -> Generator[str, None, None]:
    """Complete one prompt and yield its text piece by piece as it is drawn; joined, the pieces are `generate`'s text.

    prompt: text, or a list of messages that ends with the user's. A piece is held back while a character is
    incomplete or a stop string may have begun. Closing the iterator ends the work. Arguments and errors otherwise as
    for `generate`; they are raised when the first piece is asked for. num_beams must be 1: a search knows its answer
    only at its end.
    engine: one that `engine_for` made of the same source, with nothing else to do; kept from call to call, it does not
        run again what a prompt has in common with those before.
    """
    task = _task(source, examples, sampling)
    if task.sampling.num_beams > 1:
        raise ConfigError(
            f"stream: num_beams must be 1, for a search knows its answer only at its end, got "
            f"{task.sampling.num_beams}; use generate."
        )
    tokens = task.encode(prompt)
    check_prompt("stream", tokens, task.model.config, "the prompt")
    if engine is None:
        room = min(len(tokens) + task.sampling.max_new_tokens, task.model.config.n_positions)
        engine = engine_for(task.loaded, cache_tokens=room)
    elif engine.model is not task.model or engine.tokenizer is not task.tokenizer or engine.busy:
        got = "requests under way" if engine.busy else "another model or tokenizer"
        raise ConfigError(
            f"stream: the engine must be of this model and have nothing to do, got one with {got}; leave it out."
        )
    ticket = engine.submit(Request(tokens, task.sampling))
    try:
        while engine.busy:
            for drawn in engine.step():
                if drawn.text:
                    yield drawn.text
    finally:
        engine.cancel(ticket)


def engine_for(loaded: Loaded, cache_tokens: int | None = None) -> Engine:
    """An engine that answers one prompt at a time and tells each token at once.

    cache_tokens: room for prompt and answer; None for the whole context. Raises CheckpointError as `stream` does.
    """
    model, tokenizer = _language_model(loaded), loaded.tokenizer
    return Engine(
        model, eos_id=tokenizer.eos_id, tokenizer=tokenizer, max_rows=1, cache_tokens=cache_tokens, tokens_a_look=1
    )


def sampling_config(options: Mapping[str, Any]) -> SamplingConfig:
    """Make a SamplingConfig from options by name; raises ConfigError for an unknown one, suggesting the nearest."""
    known = [field.name for field in dataclasses.fields(SamplingConfig)]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"generate: unknown option {name!r}{nearest(name, known) or '.'} The options are {', '.join(known)}."
            )
    return SamplingConfig(**options)


@dataclass(frozen=True)
class _Task:
    """What is asked, checked and loaded: everything but the prompts."""

    loaded: Loaded
    model: GPT
    few_shot: FewShot | None
    sampling: SamplingConfig

    @property
    def tokenizer(self) -> Tokenizer:
        return self.loaded.tokenizer

    def encode(self, prompt: Prompt) -> list[int]:
        """The tokens that an answer follows."""
        form = self.loaded.prompt_format
        if self.few_shot is not None:
            return self.tokenizer.encode_prompt(self.few_shot.prompt(prompt, form), form)
        return self.tokenizer.encode_prompt(prompt if isinstance(prompt, str) else as_messages(prompt), form)


def _task(source: Source, examples: Examples | None, options: Mapping[str, Any]) -> _Task:
    sampling = sampling_config(options)
    few_shot = None if examples is None else as_few_shot(examples)
    if not isinstance(source, str | os.PathLike | Loaded):
        raise ConfigError(
            f"generate: the source must be a path or what load_model returned, got {type(source).__name__}; for a "
            "model in memory use sample."
        )
    # Half-precision weights are kept: decoding reads every weight once a token.
    loaded = source if isinstance(source, Loaded) else load_model(source, device=torch.get_default_device())
    model = _language_model(loaded)
    if few_shot is not None and "stop" not in options:
        sampling = dataclasses.replace(sampling, stop=few_shot.stop(loaded.prompt_format))
    return _Task(loaded, model, few_shot, sampling)


def _language_model(loaded: Loaded) -> GPT:
    if not isinstance(loaded.model, GPT):
        raise CheckpointError(
            f"generate: {loaded.path} must hold a language model, got the scalar model of stage {loaded.stage!r}; "
            "use the checkpoint of a pretrain, sft or ppo run."
        )
    return loaded.model


def _complete(
    source: Source, prompt: Any, examples: Examples | None, n: int, batch_size: int, top_logprobs: int,
    options: Mapping[str, Any],
) -> tuple[bool, list[list[Completion]]]:
    """Whether one prompt was given, and n completions of each prompt."""
    for name, value, least in (("n", n, 1), ("batch_size", batch_size, 1), ("top_logprobs", top_logprobs, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(
                f"generate: {name} must be a number of at least {least}, got {value!r}; correct the option."
            )
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise DataError(
            f"generate: a prompt must be text, a list of messages, or a list of these, got {type(prompt).__name__}"
        )
    task = _task(source, examples, options)
    one = isinstance(prompt, str) or _is_dialogue(prompt)
    prompts = [task.encode(each) for each in ([prompt] if one else prompt)]
    for place, tokens in enumerate(prompts):
        check_prompt("generate", tokens, task.model.config, f"prompt {place}")
    sampling, tokenizer = task.sampling, task.tokenizer
    if sampling.num_beams > 1:
        if top_logprobs:
            raise ConfigError(f"generate: top_logprobs must be 0 beside num_beams, got {top_logprobs}; leave it out.")
        return one, beam_search(
            task.model, prompts, sampling, eos_id=tokenizer.eos_id, tokenizer=tokenizer, count=n, batch_size=batch_size
        )
    found = sample(
        task.model, [tokens for tokens in prompts for _ in range(n)], sampling, eos_id=tokenizer.eos_id,
        tokenizer=tokenizer, batch_size=batch_size, top_logprobs=top_logprobs,
    )
    return one, [found[place : place + n] for place in range(0, len(found), n)]


def _shaped(found: list[list[Any]], one: bool, n: int) -> Any:
    answers = [several[0] if n == 1 else several for several in found]
    return answers[0] if one else answers


def _is_dialogue(prompt: Sequence[Any]) -> bool:
    return bool(prompt) and all(isinstance(item, (Message, Mapping)) for item in prompt)
