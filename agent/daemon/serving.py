"""Putting the HTTP API in front of a daemon."""

from __future__ import annotations

from agent.api import ApiServer, Sources, create_app
from agent.daemon.control import DaemonControl
from agent.daemon.daemon import Daemon
from agent.daemon.views import Views


def serve_api(daemon: Daemon, *, port: int | None = None) -> ApiServer:
    """Take the port and attach the server; it begins to answer with :meth:`Daemon.start`.

    Raises:
        Misconfigured: PORT_IN_USE, or the host is not one of this machine.
    """
    parts, settings = daemon.parts, daemon.parts.settings.api
    views = Views(daemon)
    token = settings.token.get_secret_value() if settings.token is not None else None
    app = create_app(
        Sources(
            policy=parts.policy,
            store=parts.store,
            engine=parts.engine,
            rules=parts.rules,
            started_at=daemon.started_at,
            alive=lambda: daemon.alive,
            problems=views.problems,
            database_health=views.database_health,
            migration_status=views.migration_status,
            backup_status=views.backup_status,
            metrics=views.metrics,
            families=parts.telemetry.families,
            recent=views.recent,
            schedule=parts.scheduler.due_times,
            automation=views.automation,
            control=DaemonControl(daemon),
            token=token,
        )
    )
    server = ApiServer(app, host=settings.host, port=settings.port if port is None else port)
    daemon.server = server
    return server
