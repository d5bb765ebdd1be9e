"""What a client is told when its request is not answered: status, reason, and OpenAI's JSON shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Nobody reads a response after the client has gone; the number, nginx's, is for the metrics.
CLIENT_GONE = 499


class ApiError(Exception):
    """A refusal or failure with its HTTP status.

    type, param, code: as OpenAI's errors carry them; param is the field of the request that is to blame.
    headers: sent beside. Not an InstructGPTError: it never leaves the server but as a response.
    """

    def __init__(
        self, status: int, message: str, *, type: str = "invalid_request_error", param: str | None = None,
        code: str | None = None, headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type = status, message, type
        self.param, self.code, self.headers = param, code, dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON object that clients of OpenAI's API understand."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A 400: the request itself is wrong and will stay so."""
    return ApiError(400, message, param=param, code=code)


def too_many(message: str) -> ApiError:
    """A 429: the same request may be served in a moment."""
    return ApiError(
        429, message, type="rate_limit_error", code="rate_limit_exceeded", headers={"Retry-After": "1"}
    )


def stopping() -> ApiError:
    """A 503: the server is about to end."""
    return ApiError(
        503, "The server is stopping; send the request again later.", type="server_error", code="server_stopping",
        headers={"Retry-After": "5"},
    )


def timed_out(seconds: float) -> ApiError:
    """A 503 that clients must not repeat by themselves: it would take as long again."""
    return ApiError(
        503, f"The request took longer than this server's limit of {seconds:g} seconds and was cancelled; "
        "ask for fewer tokens or choices.", type="server_error", code="request_timeout",
        headers={"x-should-retry": "false"},
    )


def model_failed(name: str) -> ApiError:
    """A 500: the model broke. Why stands in the server's log and not in an answer."""
    return ApiError(
        500, f"The model {name!r} has failed and serves no more requests; the server's log says why.",
        type="server_error", code="model_failed", headers={"x-should-retry": "false"},
    )


def internal_error() -> ApiError:
    """A 500: a mistake of the server's own."""
    return ApiError(
        500, "The server could not answer because of a mistake of its own; its log says which.", type="server_error",
        code="internal_error",
    )


def slow_reader(limit: int) -> ApiError:
    """A client that reads so slowly that more than `limit` tokens wait for it."""
    return ApiError(
        503, f"More than {limit} tokens were waiting to be read, and the request was cancelled; read faster.",
        type="server_error", code="reader_too_slow",
    )
