"""What both ways of asking share: prompts within the context, how tokens are drawn, the words for a token."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from starlette.requests import Request as HttpRequest

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.generate import SamplingConfig, default_seeds
from instructgpt_fast.generate.requests import Drawn, Request
from instructgpt_fast.serve.errors import bad_request
from instructgpt_fast.serve.models import Served
from instructgpt_fast.serve.options import ServeConfig
from instructgpt_fast.serve.protocol import Sampled, parse
from instructgpt_fast.tokenizer import Tokenizer

# JSON has no infinity; OpenAI's API writes the log-probability of what cannot be drawn so.
_IMPOSSIBLE = -9999.0
# Bytes of a body that is read at once. A larger one is read in a thread: a megabyte of the smallest messages takes most
# of a second, in which nobody else would be sent anything.
_SMALL_BODY = 1 << 14
# The same for encoding what it asks, which is slower: at most a millisecond or two, where a thread would cost most
# requests more than their encoding.
_SHORT_BODY = 1 << 12

R = TypeVar("R", bound=Sampled)
P = ParamSpec("P")
T = TypeVar("T")


async def read(cls: type[R], http: HttpRequest) -> R:
    """The body of a request. Raises ApiError 400 as `parse` does."""
    body = await http.body()
    return parse(cls, body) if len(body) <= _SMALL_BODY else await asyncio.to_thread(parse, cls, body)


async def encoded(http: HttpRequest, encode: Callable[P, T], *given: P.args, **options: P.kwargs) -> T:
    """What `encode` returns; in a thread for a long request, so that it does not hold up what the others are sent."""
    if len(await http.body()) <= _SHORT_BODY:
        return encode(*given, **options)
    return await asyncio.to_thread(encode, *given, **options)


def check_choices(asked: Sampled, prompts: int, config: ServeConfig) -> None:
    """Raise ApiError 400 for more answers than a request may ask for; to be called before prompts are encoded."""
    if prompts * asked.choices > config.max_choices:
        raise bad_request(
            f"a request may ask for {config.max_choices} answers, got {prompts} prompts times n={asked.choices}; "
            "ask for fewer.", "n",
        )


def requests_of(
    asked: Sampled, served: Served, config: ServeConfig, prompts: Sequence[Sequence[int]], *, max_tokens: int | None,
    top_logprobs: int, param: str,
) -> list[Request]:
    """One engine request a prompt; the seeds number through the answers as `generate`'s do through its prompts.

    prompts: token ids. max_tokens: of an answer; None is what the context has room for, which ends it in any case.
    top_logprobs: alternatives told beside each token. param: the field that holds the prompts.
    Raises ApiError 400 for a prompt that is empty, too long or has unknown ids, and for numbers beyond the server's
    limits.
    """
    limit = served.context if config.max_new_tokens is None else config.max_new_tokens
    # Without a limit of the server's own, more than the context has room for is no mistake: it says "to the end".
    if max_tokens is not None and config.max_new_tokens is not None and max_tokens > limit:
        raise bad_request(
            f"a request may ask for {limit} tokens an answer, got {max_tokens}; ask for fewer.", "max_tokens"
        )
    for prompt in prompts:
        _check_prompt(prompt, served, param)
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    seeds = default_seeds(seed, len(prompts) * asked.choices)
    sampling = _sampling(asked, min(max_tokens or limit, limit, served.context))
    n = asked.choices
    return [
        Request(prompt, sampling, count=n, seeds=seeds[i * n : (i + 1) * n], top_logprobs=top_logprobs)
        for i, prompt in enumerate(prompts)
    ]


def _check_prompt(prompt: Sequence[int], served: Served, param: str) -> None:
    if not prompt:
        raise bad_request(f"{param} must have at least one token, got none; write something.", param)
    if len(prompt) >= served.context:
        raise bad_request(
            f"The context of {served.name!r} is {served.context} tokens, prompt and answer together, got a prompt of "
            f"{len(prompt)} tokens; shorten it to at most {served.context - 1}.", param, "context_length_exceeded",
        )
    vocabulary = served.tokenizer.vocab_size
    if min(prompt) < 0 or max(prompt) >= vocabulary:
        raise bad_request(
            f"token ids in {param} must be in 0..{vocabulary - 1}, got {f'{min(prompt)}..{max(prompt)}':.60}; encode "
            f"it with the tokenizer of {served.name!r}.", param,
        )


def _sampling(asked: Sampled, max_new_tokens: int) -> SamplingConfig:
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    given = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    try:
        return SamplingConfig(max_new_tokens=max_new_tokens, stop=asked.stop or (), **given)
    except ConfigError as error:
        raise bad_request(str(error)) from None


def finish_reason(drawn: Drawn) -> str | None:
    """OpenAI's word for why an answer ended: "stop" for the model's own end and for a stop string, or "length"."""
    return "stop" if drawn.finish_reason == "eos" else drawn.finish_reason


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes | None:
    """The bytes of a token; None for a special one, such as the end of the text, which has none in the answer."""
    return None if token in tokenizer.special_ids else tokenizer.bytes_of(token)


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token in words: its text, its name, or "bytes:\\xe2\\x82" for a part of a character, as OpenAI's API does."""
    data = tokenizer.bytes_of(token)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def json_logprob(value: float) -> float:
    """A log-probability in nats that JSON can hold."""
    return max(value, _IMPOSSIBLE)


def usage(prompts: Sequence[Request], drawn: int) -> dict[str, Any]:
    """Counts of tokens: of the prompts, each once whatever n is, and of all answers with their end-of-text tokens."""
    prompt_tokens = sum(len(request.prompt) for request in prompts)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": drawn, "total_tokens": prompt_tokens + drawn}
