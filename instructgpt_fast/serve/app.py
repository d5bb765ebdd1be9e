"""The application: routes, limits and metrics put together over loaded models."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

from instructgpt_fast._version import VERSION
from instructgpt_fast.serve import chat, completions, errors, page
from instructgpt_fast.serve.errors import ApiError
from instructgpt_fast.serve.limits import Gate, Limits
from instructgpt_fast.serve.metrics import CountRequests, Metrics
from instructgpt_fast.serve.models import Served, find, listed
from instructgpt_fast.serve.options import ServeConfig
from instructgpt_fast.serve.respond import Serving
from instructgpt_fast.serve.worker import Worker

log = logging.getLogger("instructgpt_fast.serve")
router = APIRouter()


def create_app(config: ServeConfig, models: dict[str, Served], key: bytes | None = None) -> FastAPI:
    """The application that serves `models`; its worker runs from the application's start to its end.

    key: what clients must send; None asks for none.
    """
    worker = Worker(
        models, max_rows=config.max_rows, max_queue=config.max_queue, max_unread=config.max_unread_tokens
    )
    metrics = Metrics(worker.stats)
    worker.on_tokens = metrics.on_tokens
    gate = Gate()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await worker.stop()

    # No pages of documentation: they would load scripts from other hosts. And no telemetry, which newer versions of
    # FastAPI send where the environment says so (older ones ignore the argument): what is asked here stays here.
    app = FastAPI(
        title="instructgpt_fast", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False,
                   "operation_spans": False},
    )
    app.state.serving = Serving(config, models, worker, metrics, gate)
    for part in (router, completions.router, chat.router, page.router):
        app.include_router(part)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _no_such_route)
    app.add_exception_handler(Exception, _mistaken)
    # The last one added is the outermost: requests that are refused are counted too, and can be read by allowed pages.
    app.add_middleware(Limits, config=config, key=key, gate=gate)
    app.add_middleware(CountRequests, count=metrics.count)
    if config.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=config.allowed_origins, allow_methods=["GET", "POST"], allow_headers=["*"],
            max_age=600,
        )
    return app


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """The models served."""
    serving: Serving = request.app.state.serving
    return JSONResponse(listed(list(serving.models.values())))


@router.get("/v1/models/{name:path}")
async def describe_model(name: str, request: Request) -> Response:
    """One model."""
    serving: Serving = request.app.state.serving
    return JSONResponse(find(serving.models, name).described())


@router.get("/health")
async def health(request: Request) -> Response:
    """Whether requests can be served: "ok", "degraded" while one model of several has failed; else 503."""
    serving: Serving = request.app.state.serving
    models = {name: "ok" if model.failure is None else "failed" for name, model in serving.models.items()}
    if serving.gate.stopping:
        status = "stopping"
    elif not serving.worker.alive or set(models.values()) == {"failed"}:
        status = "failed"
    else:
        status = "degraded" if "failed" in models.values() else "ok"
    return JSONResponse({"status": status, "models": models}, 200 if status in ("ok", "degraded") else 503)


@router.get("/metrics")
async def metrics_text(request: Request) -> Response:
    """Numbers for Prometheus."""
    serving: Serving = request.app.state.serving
    return Response(serving.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path if len(request.url.path) <= 100 else request.url.path[:100] + "..."
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"{path} is asked by {allowed}, got {request.method}."
    else:
        message = f"There is nothing at {path}; the API is /v1/models, /v1/completions and /v1/chat/completions."
    return await _refused(request, ApiError(error.status_code, message, code="no_such_route", headers=error.headers))


async def _mistaken(request: Request, error: Exception) -> Response:
    # Starlette logs the traceback after this; the client learns nothing of it.
    return await _refused(request, errors.internal_error())
