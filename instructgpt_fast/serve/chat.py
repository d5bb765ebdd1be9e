"""POST /v1/chat/completions: a dialogue, encoded as the model was trained, answered by the assistant.

Not covered: tools, images and every other content than text; roles but system, developer (as system), user, assistant.
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
from instructgpt_fast.serve.events import Chunks
from instructgpt_fast.serve.models import Served, find
from instructgpt_fast.serve.protocol import ChatMessage, ChatRequest
from instructgpt_fast.serve.respond import Serving, respond
from instructgpt_fast.serve.writer import Logprobs, Writer
from instructgpt_fast.tokenizer import Message, Tokenizer

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat_completions(http: HttpRequest) -> Response:
    """Answer a dialogue n times."""
    serving: Serving = http.app.state.serving
    asked = await asking.read(ChatRequest, http)
    max_tokens = _check(asked)
    served = find(serving.models, asked.model)
    asking.check_choices(asked, 1, serving.config)
    prompt = await asking.encoded(http, encode, served, asked.messages)
    requests = asking.requests_of(
        asked, served, serving.config, [prompt], max_tokens=max_tokens, top_logprobs=asked.top_logprobs or 0,
        param="messages",
    )
    return await respond(
        http, serving, served, requests, ChatWriter(asked, served, requests), stream=bool(asked.stream),
        include_usage=asked.include_usage,
    )


def encode(served: Served, messages: Sequence[ChatMessage]) -> list[int]:
    """Token ids of a dialogue. Raises ApiError 400 for an order of roles that the model was not trained on."""
    turns = [
        Message("system" if message.role == "developer" else message.role, message.content) for message in messages
    ]
    form = served.loaded.prompt_format
    if form == "raw" and [turn.role for turn in turns] != ["user"]:
        raise bad_request(
            f"the model {served.name!r} knows no roles (its prompt format is 'raw'), so messages must be one user "
            f"message, got {', '.join(turn.role for turn in turns[:5])}; send that, or use /v1/completions.",
            "messages",
        )
    try:
        return served.tokenizer.encode_prompt(turns, form)
    except DataError as error:
        raise bad_request(f"{error}.", "messages") from None


def _check(asked: ChatRequest) -> int | None:
    if asked.top_logprobs and not asked.logprobs:
        raise bad_request("top_logprobs must come with logprobs=true; add it.", "top_logprobs")
    if asked.stream_options is not None and not asked.stream:
        raise bad_request("stream_options must come with stream=true; leave it out.", "stream_options")
    both = (asked.max_tokens, asked.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise bad_request(
            f"max_tokens and max_completion_tokens mean the same, got {both[0]} and {both[1]}; give one.", "max_tokens"
        )
    return both[0] if both[1] is None else both[1]


class ChatWriter(Writer):
    """Answers in the JSON of /v1/chat/completions."""

    kind = "chat.completion"
    kind_of_event = "chat.completion.chunk"
    prefix = "chatcmpl"

    def __init__(self, asked: ChatRequest, served: Served, requests: Sequence[Request]) -> None:
        count = asked.choices
        logprobs = [_Logprobs(served.tokenizer) for _ in range(count)] if asked.logprobs else []
        super().__init__(served.name, requests, [""] * count, [*logprobs])
        self._include_usage = asked.include_usage
        self._chunks = self._deltas('{"content":%s}', "{}")

    def opening(self) -> str:
        """Who speaks."""
        return "".join(one.event("", None, None) for one in self._deltas("%s", '{"role":"assistant","content":""}'))

    def said(self, text: str) -> dict[str, Any]:
        """The assistant's message."""
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _deltas(self, text: str, no_text: str) -> list[Chunks]:
        return self.chunks_of(f'"delta":{text}', f'"delta":{no_text}', include_usage=self._include_usage)


class _Logprobs(Logprobs):
    """Log-probabilities in the shape of /v1/chat/completions: an entry a token, with its alternatives."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def of(self, drawn: Drawn) -> dict[str, Any]:
        """One token's, in a list of one entry."""
        alternatives = [self._told(token, logprob) for token, logprob in drawn.alternatives]
        return self._listed([{**self._told(drawn.token, drawn.logprob), "top_logprobs": alternatives}])

    def all(self) -> dict[str, Any]:
        """Those that were kept."""
        return self._listed([part["content"][0] for part in self._parts])

    def _listed(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        return {"content": entries, "refusal": None}

    def _told(self, token: int, logprob: float) -> dict[str, Any]:
        data = asking.token_bytes(self._tokenizer, token)
        return {
            "token": asking.token_text(self._tokenizer, token), "logprob": asking.json_logprob(logprob),
            "bytes": None if data is None else list(data),
        }
