"""POST /v1/chat/completions: a dialogue, encoded as the model was trained, answered by the assistant.

Not covered: tools, images and every other content than text; roles but system, developer (as system), user, assistant.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from instructgpt_fast.errors import DataError
from instructgpt_fast.generate.requests import Drawn, Request
from instructgpt_fast.serve import asking
from instructgpt_fast.serve.answer import Token
from instructgpt_fast.serve.errors import bad_request
from instructgpt_fast.serve.events import Chunks, event
from instructgpt_fast.serve.models import Served, find
from instructgpt_fast.serve.protocol import ChatMessage, ChatRequest
from instructgpt_fast.serve.respond import Serving, respond
from instructgpt_fast.tokenizer import Message

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


class ChatWriter:
    """Answers in the JSON of /v1/chat/completions."""

    def __init__(self, asked: ChatRequest, served: Served, requests: Sequence[Request]) -> None:
        self._asked, self._served, self._requests = asked, served, requests
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": served.name,
        }
        self._drawn = 0
        self._texts: list[list[str]] = [[] for _ in range(asked.choices)]
        self._reasons: list[str | None] = [None] * asked.choices
        self._logprobs: list[list[dict[str, Any]]] = [[] for _ in range(asked.choices)]
        self._chunk_head = {**self._head, "object": "chat.completion.chunk"}
        self._chunks = self._chunks_of('{"content":%s}', "{}")

    def opening(self) -> str:
        """Who speaks."""
        chunks = self._chunks_of("%s", '{"role":"assistant","content":""}')
        return "".join(one.event("", None, None) for one in chunks)

    def event(self, token: Token) -> str:
        """A token's text, its log-probability or its being the last; "" for a token that has nothing to show yet."""
        choice, drawn = token.choice, token.drawn
        self._drawn += 1
        reason = asking.finish_reason(drawn)
        told = {"content": [self._entry(drawn)], "refusal": None} if self._asked.logprobs else None
        if not drawn.text and reason is None and told is None:
            return ""
        return self._chunks[choice].event(drawn.text, told, reason)

    def usage(self) -> str:
        """The counts, without a choice."""
        return event({**self._chunk_head, "choices": [], "usage": asking.usage(self._requests, self._drawn)})

    def keep(self, token: Token) -> None:
        """Take a token for the whole answer."""
        choice, drawn = token.choice, token.drawn
        self._drawn += 1
        if drawn.text:
            self._texts[choice].append(drawn.text)
        self._reasons[choice] = asking.finish_reason(drawn)
        if self._asked.logprobs:
            self._logprobs[choice].append(self._entry(drawn))

    def whole(self) -> dict[str, Any]:
        """All answers."""
        choices = [
            {
                "index": i, "message": {"role": "assistant", "content": "".join(texts), "refusal": None},
                "finish_reason": self._reasons[i],
                "logprobs": {"content": self._logprobs[i], "refusal": None} if self._asked.logprobs else None,
            }
            for i, texts in enumerate(self._texts)
        ]
        return {
            **self._head, "object": "chat.completion", "choices": choices,
            "usage": asking.usage(self._requests, self._drawn),
        }

    def _chunks_of(self, text: str, no_text: str) -> list[Chunks]:
        more = {"usage": None} if self._asked.include_usage else None
        return [
            Chunks(self._chunk_head, i, text=f'"delta":{text}', no_text=f'"delta":{no_text}', more=more)
            for i in range(self._asked.choices)
        ]

    def _entry(self, drawn: Drawn) -> dict[str, Any]:
        return {
            **self._told(drawn.token, drawn.logprob),
            "top_logprobs": [self._told(token, logprob) for token, logprob in drawn.alternatives],
        }

    def _told(self, token: int, logprob: float) -> dict[str, Any]:
        data = asking.token_bytes(self._served.tokenizer, token)
        return {
            "token": asking.token_text(self._served.tokenizer, token), "logprob": asking.json_logprob(logprob),
            "bytes": None if data is None else list(data),
        }
