"""POST /v1/completions: text or tokens go to the model as they are, and it goes on from there.

Not covered: log-probabilities of the prompt (echo together with logprobs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from instructgpt_fast.errors import DataError
from instructgpt_fast.generate.requests import Drawn, Request
from instructgpt_fast.serve import asking
from instructgpt_fast.serve.errors import bad_request
from instructgpt_fast.serve.models import Served, find
from instructgpt_fast.serve.protocol import CompletionRequest
from instructgpt_fast.serve.respond import Serving, respond
from instructgpt_fast.serve.writer import Logprobs, Writer
from instructgpt_fast.tokenizer import Tokenizer

router = APIRouter()

# Tokens of an answer where none is asked for, as in OpenAI's API.
_DEFAULT_MAX_TOKENS = 16


@router.post("/v1/completions")
async def completions(http: HttpRequest) -> Response:
    """Complete each prompt n times."""
    serving: Serving = http.app.state.serving
    asked = await asking.read(CompletionRequest, http)
    _check(asked)
    served = find(serving.models, asked.model)
    asking.check_choices(asked, len(asked.prompt), serving.config)
    prompts = await asking.encoded(http, encode, served, asked.prompt)
    requests = asking.requests_of(
        asked, served, serving.config, prompts, max_tokens=asked.max_tokens or _DEFAULT_MAX_TOKENS,
        top_logprobs=asked.logprobs or 0, param="prompt",
    )
    return await respond(
        http, serving, served, requests, CompletionWriter(asked, served, requests), stream=bool(asked.stream),
        include_usage=asked.include_usage,
    )


def encode(served: Served, prompts: Sequence[str | Sequence[int]]) -> list[list[int]]:
    """Token ids of each prompt; empty text is the end-of-text token, after which a text begins.

    Raises ApiError 400 for a text that the tokenizer gives up.
    """
    tokenizer = served.tokenizer
    try:
        return [
            (tokenizer.encode(prompt) or [tokenizer.eos_id]) if isinstance(prompt, str) else list(prompt)
            for prompt in prompts
        ]
    except DataError as error:
        raise bad_request(f"{error}.", "prompt") from None


def _check(asked: CompletionRequest) -> None:
    if asked.best_of not in (None, asked.choices):
        raise bad_request(f"best_of is not served but as n, got {asked.best_of} and n={asked.choices}.", "best_of",
                          "unsupported_parameter")
    if asked.echo and asked.logprobs is not None:
        raise bad_request("echo is not served together with logprobs; leave one out.", "echo", "unsupported_parameter")
    if asked.stream_options is not None and not asked.stream:
        raise bad_request("stream_options must come with stream=true; leave it out.", "stream_options")


class CompletionWriter(Writer):
    """Answers in the JSON of /v1/completions."""

    kind = kind_of_event = "text_completion"
    prefix = "cmpl"

    def __init__(self, asked: CompletionRequest, served: Served, requests: Sequence[Request]) -> None:
        before = [_echoed(asked, served, i) for i in range(len(requests)) for _ in range(asked.choices)]
        logprobs = [] if asked.logprobs is None else [_Logprobs(served.tokenizer, asked.logprobs) for _ in before]
        super().__init__(served.name, requests, before, [*logprobs])
        self._chunks = self.chunks_of('"text":%s', '"text":""', include_usage=asked.include_usage)

    def opening(self) -> str:
        """The prompts, where they are to be echoed."""
        pieces = zip(self._chunks, self._texts, strict=True)
        return "".join(chunks.event("".join(texts), None, None) for chunks, texts in pieces if texts)

    def said(self, text: str) -> dict[str, Any]:
        """The text."""
        return {"text": text}


def _echoed(asked: CompletionRequest, served: Served, prompt: int) -> str:
    if not asked.echo:
        return ""
    given = asked.prompt[prompt]
    return given if isinstance(given, str) else served.tokenizer.decode(given)


class _Logprobs(Logprobs):
    """Log-probabilities in the shape of /v1/completions: four lists of one entry a token."""

    def __init__(self, tokenizer: Tokenizer, alternatives: int) -> None:
        super().__init__()
        self._tokenizer, self._alternatives = tokenizer, alternatives
        self._text, self._offset = tokenizer.text_stream(), 0

    def of(self, drawn: Drawn) -> dict[str, Any]:
        """One token's, in lists of one entry."""
        text, logprob = asking.token_text(self._tokenizer, drawn.token), asking.json_logprob(drawn.logprob)
        top = None
        if self._alternatives:
            top = {asking.token_text(self._tokenizer, token): asking.json_logprob(p) for token, p in drawn.alternatives}
            top.setdefault(text, logprob)
        offset, self._offset = self._offset, self._offset + len(self._text.push(drawn.token))
        return {
            "tokens": [text], "token_logprobs": [logprob], "top_logprobs": None if top is None else [top],
            "text_offset": [offset],
        }

    def all(self) -> dict[str, Any]:
        """Those that were kept."""
        names = ("tokens", "token_logprobs", "text_offset")
        whole: dict[str, Any] = {name: [part[name][0] for part in self._parts] for name in names}
        whole["top_logprobs"] = [part["top_logprobs"][0] for part in self._parts] if self._alternatives else None
        return whole
