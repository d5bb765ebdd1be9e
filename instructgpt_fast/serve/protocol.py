"""What a request may say: the fields of OpenAI's API that are served, their types and ranges.

Types are strict: no text for a number, no true for 1. A field that OpenAI's API has and this server does not serve is
accepted at the value that changes nothing and refused by name at any other; a field nobody knows is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from instructgpt_fast.config import nearest
from instructgpt_fast.serve.errors import ApiError, bad_request

STOPS_AT_MOST = 4
STOP_CHARACTERS_AT_MOST = 500

# Field -> the values that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "store": (None, False),
    "metadata": (None, {}),
    "service_tier": (None, "auto", "default"),
}
_LABELS = ("user", "safety_identifier", "prompt_cache_key")  # text about the caller, which changes no answer


class _Strict(BaseModel):
    """A JSON object with the fields that its class names."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)

    # Fields served at these values only; a subclass adds its own.
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    labels: ClassVar[tuple[str, ...]] = ()


class StreamOptions(_Strict):
    """What a stream carries beside the text."""

    neutral = {"include_obfuscation": (None, False)}

    include_usage: bool | None = None


class Sampled(_Strict):
    """The fields that both ways of asking share."""

    neutral = _NEUTRAL
    labels = _LABELS

    model: Annotated[str, Field(min_length=1, max_length=200)]
    n: Annotated[int, Field(ge=1)] | None = None
    # Closer to 0 the scaled logits leave f32; 0 itself takes the likeliest token.
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=1e-6, le=1.0)] | None = None
    stop: Any = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100.0)] | None = None

    @field_validator("temperature")
    @classmethod
    def _zero_or_representable(cls, value: float | None) -> float | None:
        if value is not None and 0.0 < value < 1e-4:
            raise ValueError("must be 0 or at least 0.0001")
        return value

    @field_validator("stop")
    @classmethod
    def _few_strings(cls, value: Any) -> tuple[str, ...]:
        if value is None:
            return ()
        stops = [value] if isinstance(value, str) else value
        if not isinstance(stops, list) or len(stops) > STOPS_AT_MOST or not all(isinstance(s, str) for s in stops):
            raise ValueError(f"must be a string or a list of at most {STOPS_AT_MOST} strings")
        if not all(1 <= len(s) <= STOP_CHARACTERS_AT_MOST for s in stops):
            raise ValueError(f"must hold strings of 1 to {STOP_CHARACTERS_AT_MOST} characters")
        return tuple(stops)

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return 1 if self.n is None else self.n

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class CompletionRequest(Sampled):
    """Body of POST /v1/completions: text or tokens to go on from, as they are."""

    neutral = {**_NEUTRAL, "suffix": (None, "")}

    prompt: Any
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None

    @field_validator("prompt")
    @classmethod
    def _text_or_tokens(cls, value: Any) -> tuple[str | tuple[int, ...], ...]:
        """One entry a prompt: text, or token ids."""
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list) and value:
            if all(isinstance(item, str) for item in value):
                return tuple(value)
            if _are_ids(value):
                return (tuple(value),)
            if all(isinstance(item, list) and item and _are_ids(item) for item in value):
                return tuple(map(tuple, value))
        raise ValueError("must be a string, a list of strings, a list of token ids or a list of lists of token ids")


class ChatMessage(_Strict):
    """One turn. What OpenAI's client adds to an answer when it is sent back is accepted while it is empty."""

    neutral = {
        "name": (None,), "refusal": (None,), "annotations": (None, []), "audio": (None,), "function_call": (None,),
        "tool_calls": (None, []),
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: Any

    @field_validator("content")
    @classmethod
    def _text(cls, value: Any) -> str:
        """Text, or parts of which each is text, joined."""
        if isinstance(value, str):
            return value
        if not isinstance(value, list) or not value:
            raise ValueError("must be a string or a list of text parts")
        for part in value:
            if not isinstance(part, dict) or part.keys() != {"type", "text"} or part["type"] != "text" or (
                not isinstance(part["text"], str)
            ):
                raise ValueError('must have parts {"type": "text", "text": ...}, the only ones served')
        return "".join(part["text"] for part in value)


class ChatRequest(Sampled):
    """Body of POST /v1/chat/completions: a dialogue that ends with the user."""

    neutral = {
        **_NEUTRAL, "tools": (None, []), "tool_choice": (None, "none", "auto"), "functions": (None, []),
        "function_call": (None, "none", "auto"), "parallel_tool_calls": (None, True, False),
        "response_format": (None, {"type": "text"}), "modalities": (None, ["text"]), "audio": (None,),
        "prediction": (None,), "reasoning_effort": (None, "none"), "verbosity": (None,), "web_search_options": (None,),
    }

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


R = TypeVar("R", bound=Sampled)


def parse(cls: type[R], body: bytes) -> R:
    """Read the body of a request. Raises ApiError 400 that names the first field that is wrong, and how."""
    try:
        asked = cls.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None
    _check_extras(asked, "")
    return asked


def _check_extras(part: _Strict, place: str) -> None:
    for name, value in (part.model_extra or {}).items():
        where = place + name
        if name in part.labels:
            if value is not None and not isinstance(value, str):
                raise bad_request(f"{where} must be text, got {_shown(value)}.", where)
        elif name in part.neutral:
            if not any(_same(value, allowed) for allowed in part.neutral[name]):
                raise bad_request(
                    f"{where} is not served by this server, got {_shown(value)}; leave it out.", where,
                    "unsupported_parameter",
                )
        else:
            known = [*type(part).model_fields, *part.neutral, *part.labels]
            hint = nearest(name[:100], known) or "; leave it out."
            raise bad_request(f"unknown field {_shown(where)}{hint}", where[:100], "unknown_parameter")
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, _Strict):
            _check_extras(value, f"{place}{name}.")
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, _Strict):
                    _check_extras(item, f"{place}{name}[{i}].")


def _refusal(error: ValidationError) -> ApiError:
    found = error.errors(include_url=False)[0]
    if found["type"] == "json_invalid":
        what = found["msg"].removeprefix("Invalid JSON: ")
        return bad_request(f"the body must be JSON: {what}.", code="invalid_json")
    if not found["loc"]:
        return bad_request(f"the body must be a JSON object, got {_shown(found['input'])}.", code="invalid_json")
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in found["loc"]).removeprefix(".")
    if found["type"] == "missing":
        return bad_request(f"{place} must be given, got nothing.", place, "missing_required_parameter")
    if found["type"] == "too_short":
        return bad_request(f"{place} must not be empty.", place)
    cause = found.get("ctx", {}).get("error")
    rule = str(cause) if isinstance(cause, ValueError) else found["msg"].removeprefix("Input ").removeprefix("should ")
    rule = rule if rule.startswith("must") else f"must {rule[:1].lower()}{rule[1:]}"
    return bad_request(f"{place} {rule}, got {_shown(found['input'])}.", place)


def _are_ids(values: list[Any]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) for item in values)


def _same(value: Any, allowed: Any) -> bool:
    # False equals 0 in Python, and is no number in JSON.
    return bool(value == allowed) and isinstance(value, bool) == isinstance(allowed, bool)


def _shown(value: Any) -> str:
    # A slice first: the repr of a body of a megabyte would cost more than refusing it.
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:60] + "...")
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 200 else "a very large number"
    return text[:60]
