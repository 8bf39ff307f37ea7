"""The application: routers and one way to answer with an error."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from agent import __version__
from agent.api import health, prometheus
from agent.api.sources import Sources
from agent.faults import RunbookdError

# What the closed kinds of errors are in HTTP.
_STATUS = {"Transient": 503, "Permanent": 422, "Misconfigured": 400, "Refused": 409}


def create_app(sources: Sources) -> FastAPI:
    """The HTTP application of one daemon."""
    app = FastAPI(title="runbookd", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(health.router(sources))
    app.include_router(prometheus.router(sources))

    @app.exception_handler(RunbookdError)
    def failed(_: Request, error: RunbookdError) -> JSONResponse:
        body = {"error": error.message, "reason": str(error.reason), "hint": error.hint}
        return JSONResponse(body, status_code=_STATUS.get(type(error).__name__, 500))

    return app
