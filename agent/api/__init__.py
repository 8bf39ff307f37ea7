"""api: the daemon over HTTP.

Belongs here: the page's four health endpoints, liveness and readiness, ``/metrics``, the read side of Prometheus's HTTP
API, the control endpoints behind a bearer token, the status page. Does not belong here: what the answers mean; every
figure comes from :class:`agent.api.sources.Sources`, which the daemon hands in.
"""

from agent.api.app import create_app, create_query_app
from agent.api.server import ApiServer
from agent.api.sources import Body, Control, Queried, Sources

__all__ = ["ApiServer", "Body", "Control", "Queried", "Sources", "create_app", "create_query_app"]
