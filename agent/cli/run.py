"""``runbookd run``: the daemon."""

from __future__ import annotations

import logging
import signal
from typing import Annotated

import typer

from agent.cli.options import runtime
from agent.daemon.serving import serve_api
from agent.daemon.wiring import build
from agent.faults import RunbookdError
from agent.telemetry import start_logging, start_telemetry

_log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    app.command()(run)


def run(
    port: Annotated[int | None, typer.Option("--port", help="Instead of api.port in the settings.")] = None,
) -> None:
    """Run the daemon: schedules, rules, pages, rollbacks. SIGHUP reads page and rules again, SIGTERM stops."""
    invocation = runtime()
    settings = invocation.settings
    start_logging(settings.log_level)
    daemon = build(settings, config=invocation.config_file, telemetry=start_telemetry("daemon"))
    serve_api(daemon, port=port)

    def reload(*_: object) -> None:
        try:
            daemon.reload()
        except RunbookdError as error:
            _log.error("the old page and rules stay in force", extra={"why": str(error)})

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: daemon.quit())
    signal.signal(signal.SIGHUP, reload)
    try:
        daemon.start()
        url = daemon.server.url if daemon.server else ""
        _log.info("runbookd is up", extra={"url": url, "page": str(settings.runbook)})
        daemon.wait()
    finally:
        daemon.stop()
