"""Is it alive, is it ready, how is the database: for load balancers, for the page's readers, for Prometheus's users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from agent.api.sources import Sources
from agent.telemetry.exposition import text_of


def probes(alive: Callable[[], bool]) -> APIRouter:
    """Prometheus's own two addresses, by GET and HEAD, for checks that were written for a Prometheus.

    https://prometheus.io/docs/prometheus/latest/management_api/. Its first always says 200. Ours doesn't while the rule
    loop stands still: whoever asks this way would otherwise not hear of it. The second says that queries are answered.
    """
    routes = APIRouter()

    def healthy() -> PlainTextResponse:
        return _said("healthy") if alive() else _said("stalled", status=503)

    def ready() -> PlainTextResponse:
        return _said("ready")

    for path, answer in (("/-/healthy", healthy), ("/-/ready", ready)):
        routes.add_api_route(path, answer, methods=["GET", "HEAD"])
    return routes


def router(sources: Sources) -> APIRouter:
    """Routes that answer from the daemon's own figures, never from the database."""
    routes = APIRouter()

    @routes.get("/healthz")
    def healthz() -> JSONResponse:
        """200 while the rule loop ticks; restart the process when it doesn't."""
        alive = sources.alive()
        return JSONResponse({"status": "ok" if alive else "stalled"}, status_code=200 if alive else 503)

    @routes.get("/readyz")
    def readyz() -> JSONResponse:
        """200 when page, rules, signals and channels work; the body names what doesn't."""
        problems = dict(sources.problems())
        body = {"status": "not ready" if problems else "ready", "problems": problems}
        return JSONResponse(body, status_code=503 if problems else 200)

    @routes.get("/api/database/health")
    def database_health() -> JSONResponse:
        body = dict(sources.database_health())
        return JSONResponse(body, status_code=503 if body.get("status") == "unreachable" else 200)

    @routes.get("/api/database/migration-status")
    def migration_status() -> Any:
        return sources.migration_status()

    @routes.get("/api/database/backup-status")
    def backup_status() -> Any:
        return sources.backup_status()

    @routes.get("/api/database/metrics")
    def metrics_json() -> Any:
        return sources.metrics()

    @routes.get("/metrics")
    def metrics(request: Request) -> Response:
        """Prometheus text, or OpenMetrics with exemplars where asked for."""
        text, kind = text_of(sources.families(), accept=request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": kind})

    return routes


def _said(what: str, *, status: int = 200) -> PlainTextResponse:
    return PlainTextResponse(f"runbookd is {what}.\n", status_code=status)
