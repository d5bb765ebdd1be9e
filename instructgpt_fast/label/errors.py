"""What a client of the labelling server is told when its request is not served."""

from __future__ import annotations

from typing import Any

from instructgpt_fast.serve.errors import ApiError


class StaleError(Exception):
    """A label was changed elsewhere, in another tab for instance; `current` is the server's copy of the task."""

    def __init__(self, current: dict[str, Any]) -> None:
        super().__init__("the label has been changed since")
        self.current = current


def malformed(message: str) -> ApiError:
    """A 400: the request is not in the form that the route takes."""
    return ApiError(400, message)


def unknown(message: str) -> ApiError:
    """A 404: there is no such labeler or task."""
    return ApiError(404, message)


def refused(message: str) -> ApiError:
    """A 422: the label breaks a rule of the form; nothing was saved."""
    return ApiError(422, message)


def displaced(name: str) -> ApiError:
    """A 503: the database is no longer where the server opened it."""
    message = (
        f"Nothing was saved: {name} or its -wal file was moved, deleted or replaced while the server runs; put both "
        "back as they were, or start the server again."
    )
    return ApiError(503, message, headers={"Retry-After": "5"})


def body(error: ApiError) -> dict[str, Any]:
    """The JSON object of an error."""
    return {"error": error.message}
