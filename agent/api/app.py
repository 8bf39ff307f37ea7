"""The application: routers and one way to answer with an error."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from agent import __version__
from agent.api import control, health, prometheus, status
from agent.api.sources import Queried, Sources
from agent.faults import Misconfigured, PermanentReason, Refused, RunbookdError, Transient

_OF_PERMANENT = {PermanentReason.NOT_FOUND: 404, PermanentReason.CONFLICT: 409}


def create_app(sources: Sources) -> FastAPI:
    """The HTTP application of one daemon."""
    parts = (part.router(sources) for part in (status, health, prometheus, control))
    return _app(*parts, health.probes(sources.alive))


def create_query_app(queried: Queried) -> FastAPI:
    """Prometheus's read API alone, over whatever answers it; ``/-/healthy`` says that it is there."""
    return _app(prometheus.router(queried), health.probes(lambda: True))


def _app(*routers: APIRouter) -> FastAPI:
    app = FastAPI(title="runbookd", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    for router in routers:
        app.include_router(router)

    @app.exception_handler(RunbookdError)
    def failed(_: Request, error: RunbookdError) -> JSONResponse:
        body = {"error": error.message, "reason": str(error.reason), "hint": error.hint}
        return JSONResponse(body, status_code=status_of(error))

    @app.exception_handler(HTTPException)
    def unknown(_: Request, error: HTTPException) -> JSONResponse:
        reason = error.detail.lower().replace(" ", "_")
        body = {"error": error.detail, "reason": reason, "hint": "the README lists the addresses"}
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)

    return app


def status_of(error: RunbookdError) -> int:
    """What an error of ours is in HTTP: the four kinds say who has to do something now."""
    match error:
        case Transient():
            return 503
        case Misconfigured():
            return 400
        case Refused():
            return 409
        case _:
            return _OF_PERMANENT.get(error.reason, 422) if isinstance(error.reason, PermanentReason) else 500
