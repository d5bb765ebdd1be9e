"""The application of the labelling server: its routes over a store, behind the limits of serve/limits.py."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from instructgpt_fast._version import VERSION
from instructgpt_fast.label import form, page
from instructgpt_fast.label.agreement import measured
from instructgpt_fast.label.checks import KINDS, STATUSES, shown
from instructgpt_fast.label.errors import StaleError, body, malformed, unknown
from instructgpt_fast.label.export import comparisons, demonstrations, jsonl
from instructgpt_fast.label.options import LabelConfig
from instructgpt_fast.label.schema import open_database, transaction
from instructgpt_fast.label.store import Store
from instructgpt_fast.serve.errors import ApiError
from instructgpt_fast.serve.limits import Gate, Limits

log = logging.getLogger("instructgpt_fast.label")
router = APIRouter()
T = TypeVar("T")

EXPORTS = {"demonstrations": demonstrations, "comparisons": comparisons}
# Ids and revisions are SQLite's integers.
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Labelling:
    """Everything that the routes share. sampling: words about the answers that are being sampled, for the page."""

    config: LabelConfig
    store: Store
    gate: Gate
    sampling: Callable[[], dict[str, Any]]


def create_app(
    config: LabelConfig, store: Store, sampling: Callable[[], dict[str, Any]] = lambda: {"state": "none"},
    on_end: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application over an open store. on_end: called when requests are no longer taken."""
    gate = Gate()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(on_end)

    # No pages of documentation: they would load scripts from other hosts. And no telemetry, which newer versions of
    # FastAPI send where the environment says so (older ones ignore the argument): what people write here stays here.
    app = FastAPI(
        title="instructgpt_fast label", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url=None, telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False,
                                     "operation_spans": False},
    )
    app.state.labelling = Labelling(config, store, gate, sampling)
    app.include_router(router)
    app.include_router(page.router)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(StaleError, _stale)
    app.add_exception_handler(HTTPException, _no_such_route)
    app.add_exception_handler(sqlite3.Error, _not_saved)
    app.add_exception_handler(Exception, _mistaken)
    app.add_middleware(Limits, config=config, key=None, gate=gate, told=body)
    return app


@router.get("/api/form")
async def get_form(request: Request) -> Response:
    """The form, what is labelled here, and what a finished ranking must rate."""
    config = _labelling(request).config
    return JSONResponse({**form.described(config.ratings), "kinds": list(config.kinds)})


@router.post("/api/labelers")
async def sign_in(request: Request) -> Response:
    """Sign in by name."""
    given = await _read(request, ("name",))
    found = await run_in_threadpool(_labelling(request).store.sign_in, given["name"])
    return JSONResponse({"id": found.id, "name": found.name})


@router.get("/api/task")
async def next_task(request: Request) -> Response:
    """The task to work on now, and how far the labeler is."""
    labelling = _labelling(request)
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A page of another site cannot read the answer, but its request would take a lease.
        raise ApiError(403, "A task must be asked for by this server's own page, got a page of another site.")
    labeler, kind = _number(request.query_params.get("labeler"), "labeler"), request.query_params.get("kind")
    if kind not in KINDS:
        raise malformed(f"kind must be one of {', '.join(KINDS)}, got {shown(kind)}.")
    task, progress = await run_in_threadpool(labelling.store.next_task, labeler, kind)
    return JSONResponse({"task": task, "progress": progress, "sampling": labelling.sampling()})


@router.get("/api/tasks")
async def list_labels(request: Request) -> Response:
    """What the labeler has labelled, the newest first."""
    labeler = _number(request.query_params.get("labeler"), "labeler")
    return JSONResponse(await run_in_threadpool(_labelling(request).store.labels_of, labeler))


@router.get("/api/tasks/{identity}")
async def get_task(identity: str, request: Request) -> Response:
    """One task with the labeler's label, to look at again and correct."""
    labeler = _number(request.query_params.get("labeler"), "labeler")
    store = _labelling(request).store
    return JSONResponse(await run_in_threadpool(store.task, labeler, _number(identity, "the task's id")))


@router.put("/api/tasks/{identity}")
async def save(identity: str, request: Request) -> Response:
    """Save a label; answered with 200 it is on disk."""
    task = _number(identity, "the task's id")
    given = await _read(request, ("labeler", "revision", "payload", "status"))
    labeler, revision = (_number(given[name], name, text=False) for name in ("labeler", "revision"))
    status = given["status"]
    if not isinstance(status, str) or status not in STATUSES:
        raise malformed(f"status must be one of {', '.join(STATUSES)}, got {shown(status)}.")
    saved = await run_in_threadpool(
        _labelling(request).store.save, labeler, task, revision, given["payload"], status
    )
    return JSONResponse({"revision": saved.revision, "status": saved.status})


@router.get("/api/agreement")
async def get_agreement(request: Request) -> Response:
    """How far the labelers agree, with intervals and counts."""
    found = await run_in_threadpool(_read_whole, _labelling(request).store.path, measured)
    return JSONResponse(found.described())


@router.get("/api/export/{name}")
async def get_export(name: str, request: Request) -> Response:
    """The finished labels of a kind as jsonl, as `label export` writes them."""
    if name not in EXPORTS:
        raise unknown(f"There is no export {shown(name)}; there are {', '.join(EXPORTS)}.")
    content = await run_in_threadpool(
        _read_whole, _labelling(request).store.path, lambda connection: jsonl(EXPORTS[name](connection))
    )
    return Response(content, media_type="application/jsonl", headers={
        "Content-Disposition": f'attachment; filename="{name}.jsonl"', "X-Content-Type-Options": "nosniff",
    })


@router.get("/health")
async def health(request: Request) -> Response:
    """Whether labels are taken."""
    labelling = _labelling(request)
    stopping = labelling.gate.stopping
    content = {"status": "stopping" if stopping else "ok", "sampling": labelling.sampling()}
    return JSONResponse(content, 503 if stopping else 200)


def _read_whole(path: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    """What `read` finds in one state of the database; on a connection of its own, so that nobody waits to save."""
    with (
        contextlib.closing(open_database(path, check=False)) as connection,
        transaction(connection, writing=False),
    ):
        return read(connection)


def _labelling(request: Request) -> Labelling:
    return cast(Labelling, request.app.state.labelling)


def _number(value: Any, name: str, *, text: bool = True) -> int:
    """A number from 0 up. text: it stands in the URL, in digits. Raises ApiError 400."""
    if text and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        value = int(value)
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise malformed(f"{name} must be a whole number from 0 up, got {shown(value)}.")
    return value


async def _read(request: Request, names: tuple[str, ...]) -> dict[str, Any]:
    """The body as an object with exactly these fields. Raises ApiError 400."""
    given = await run_in_threadpool(_decode, await request.body())
    if not isinstance(given, dict):
        raise malformed(f"the body must be a JSON object with {', '.join(names)}, got {shown(given)}.")
    for name in names:
        if name not in given:
            raise malformed(f"the body must have the field {name!r}, got {', '.join(map(shown, given)) or 'none'}.")
    for name in given:
        if name not in names:
            raise malformed(f"the body has no field {shown(name)}; its fields are {', '.join(names)}.")
    return given


def _decode(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise malformed(f"the body must be UTF-8, its byte {error.start} is not.") from None
    except RecursionError:
        raise malformed("the body must not be nested so deeply.") from None
    except ValueError as error:  # malformed JSON, or a number of thousands of digits
        raise malformed(f"the body must be JSON, got {str(error)[:120]}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise malformed("an object of the body has a field twice.")
    return found


def _no_constant(name: str) -> Any:
    raise malformed(f"a number of the body must be finite, got {name}.")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(body(error), error.status, error.headers)


async def _stale(request: Request, error: Exception) -> Response:
    assert isinstance(error, StaleError)
    message = "The label was changed elsewhere since revision was read; look at the server's copy and send yours again."
    return JSONResponse({"error": message, **error.current}, 409)


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path if len(request.url.path) <= 100 else request.url.path[:100] + "..."
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"{path} is asked by {allowed}, got {request.method}."
    else:
        message = f"There is nothing at {path}; docs/labelling.md lists the routes."
    return JSONResponse({"error": message}, error.status_code, error.headers)


async def _not_saved(request: Request, error: Exception) -> Response:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    log.error("the database refused (%s, code %s)", error, getattr(error, "sqlite_errorname", "unknown"))
    if code == sqlite3.SQLITE_FULL:
        status, why = 507, "the disk is full; free some space there"
    elif code == sqlite3.SQLITE_IOERR:
        status, why = 507, "the disk cannot be written; look after its space and health"
    else:
        status, why = 503, "the database cannot be used now; the server's log says why"
    return JSONResponse({"error": f"Nothing was saved: {why}, then send it again."}, status, {"Retry-After": "5"})


async def _mistaken(request: Request, error: Exception) -> Response:
    # Starlette logs the traceback after this; the client learns nothing of it.
    return JSONResponse(
        {"error": "The server could not answer because of a mistake of its own; its log says which."}, 500
    )
