"""What a request must pass before its content is looked at: host, stop, key, number, content type, size, time.

One pure ASGI middleware: the body is counted while it streams in, and is read whole before the routes see it, so a
request that is too large or too slow costs no more than its limit.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Callable
from typing import Any, Protocol

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from instructgpt_fast.serve import errors
from instructgpt_fast.serve.errors import ApiError

# Open to everyone, also with a key: the page holds nothing, and whoever watches a server need not be let in.
_OPEN = frozenset({"/", "/health"})


class LimitOptions(Protocol):
    """The limits of a server; the fields of `ServeConfig` of these names."""

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Further names of this machine."""

    @property
    def max_requests(self) -> int:
        """Most requests under way."""

    @property
    def max_request_bytes(self) -> int:
        """Largest body."""

    @property
    def body_seconds(self) -> float:
        """Longest time for a body to arrive."""


class Gate:
    """Whether the server is stopping; shared by the middleware, the routes and whoever handles signals."""

    def __init__(self) -> None:
        self.stopping = False


class Limits:
    """ASGI middleware that refuses what is over a limit."""

    def __init__(
        self, app: ASGIApp, config: LimitOptions, key: bytes | None, gate: Gate,
        told: Callable[[ApiError], dict[str, Any]] = ApiError.body,
    ) -> None:
        """key: what clients must send as "Authorization: Bearer KEY", None for nothing. told: a refusal as JSON."""
        self._app, self._config, self._key, self._gate, self._told = app, config, key, gate, told
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its whole body, or answer it with the reason why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_host(scope)
        except ApiError as error:
            await JSONResponse(self._told(error), error.status, error.headers)(scope, receive, send)
            return
        if scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        self._under_way += 1
        try:
            self._check_before_body(scope)
            body = await self._read(receive, Headers(scope=scope))
        except ApiError as error:
            await JSONResponse(self._told(error), error.status, error.headers)(scope, receive, send)
        except _GoneError:
            scope.setdefault("state", {})["status"] = errors.CLIENT_GONE
        else:
            await self._app(scope, _replaying(body, receive), send)
        finally:
            self._under_way -= 1

    def _check_before_body(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._gate.stopping:
            raise errors.stopping()
        if self._key is not None:
            self._check_key(headers.get("authorization", ""))
        if self._under_way > self._config.max_requests:
            raise errors.too_many(
                f"{self._config.max_requests} requests are under way, this server's limit; send it again later."
            )
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] in ("POST", "PUT") and kind != "application/json":
            # Also what keeps other web sites out: a browser sends them no JSON without asking this server first.
            raise ApiError(
                415, f"The content type of a request must be application/json, got {kind[:60]!r}; "
                "send the header 'Content-Type: application/json'.", code="unsupported_content_type",
            )

    def _check_host(self, scope: Scope) -> None:
        """Refuse a page that has its own name lead to this machine (DNS rebinding): no Origin gives it away.

        A key keeps such pages out too, because they do not know it.
        """
        allowed = self._config.allowed_hosts
        if self._key is not None or not (allowed or _is_loopback((scope.get("server") or ("",))[0])):
            return
        name = _without_port(Headers(scope=scope).get("host", ""))
        if name and name not in map(str.lower, ("localhost", *allowed)) and _address(name) is None:
            raise ApiError(
                403, f"The host must be localhost, an IP address or one of --allowed-hosts, got {name[:100]!r}; start "
                "the server with --allowed-hosts and this name if it is yours.", code="host_not_allowed",
            )

    def _check_key(self, sent: str) -> None:
        scheme, _, given = sent.partition(" ")
        # Compared in constant time: how long a refusal takes tells nothing about the key.
        right = hmac.compare_digest(given.strip().encode("utf-8"), self._key or b"")
        if scheme.lower() != "bearer" or not right:
            what = "a wrong one" if sent else "none"
            raise ApiError(
                401, f"This server asks for its API key, got {what}; send it as 'Authorization: Bearer KEY'.",
                code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"},
            )

    async def _read(self, receive: Receive, headers: Headers) -> bytes:
        limit = self._config.max_request_bytes
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced[:20]) > limit:
            raise _too_large(limit, f"{int(announced[:20]):,}")
        body = bytearray()
        try:
            async with asyncio.timeout(self._config.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise _too_large(limit, "more")
                    more = message.get("more_body", False)
        except TimeoutError:
            raise ApiError(
                408, f"The body of a request must arrive within {self._config.body_seconds:g} seconds, got "
                f"{len(body):,} bytes of it; send it faster.", code="body_timeout",
            ) from None
        return bytes(body)


def _without_port(host: str) -> str:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.strip().lower().removesuffix(".")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    mapped = getattr(address, "ipv4_mapped", None)  # how a socket for both kinds of addresses shows 127.0.0.1
    return address is not None and (mapped or address).is_loopback


class _GoneError(Exception):
    """The client left while it was sending."""


def _too_large(limit: int, got: str) -> ApiError:
    return ApiError(
        413, f"The body of a request must have at most {limit:,} bytes, got {got}; send less.",
        code="request_too_large",
    )


def _replaying(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
