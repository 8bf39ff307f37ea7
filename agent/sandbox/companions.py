"""The sandbox's companion processes as their parent sees them.

Called by the demo, by drills and by tests. The processes themselves are :mod:`agent.sandbox.proxy` and
:mod:`agent.sandbox.application`; both end with their parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.faults import Misconfigured, MisconfiguredReason
from agent.sandbox.child import Child, ChildHandle
from agent.sandbox.injection import Fault, ProxyStats

APPLICATION_CALLER = "sandbox-application"  # in the application's user agent, for faults that are its release's alone


class ProxyProcess(ChildHandle):
    """A running proxy; a context manager that stops it. See :func:`start_proxy`."""

    def __init__(self, child: Child) -> None:
        super().__init__(child)
        self.host: str = child.ready["host"]

    def inject(self, fault: Fault) -> None:
        """Make ``fault`` active, in addition to those that are."""
        self._ask({"do": "inject", "fault": fault.to_json()})

    def clear(self) -> None:
        """Make all faults inactive."""
        self._ask({"do": "clear"})

    def stats(self) -> ProxyStats:
        """What went through so far."""
        return self._ask({"do": "stats"})

    def _ask(self, question: dict[str, Any]) -> ProxyStats:
        return ProxyStats(**self._child.ask(question))


def start_proxy(upstream: str, *, port: int = 0) -> ProxyProcess:
    """Start a pass-through proxy in front of ``upstream`` (``host:port``, no TLS).

    Whether anything answers at ``upstream`` is not checked: calls then end in UNAVAILABLE, as without the proxy.

    Raises:
        Transient: ``WORKER_DIED`` if the process doesn't come up (its own words are on stderr).
    """
    arguments = ["--upstream", upstream, "--port", str(port)]
    return ProxyProcess(Child("agent.sandbox.proxy", arguments, name="proxy"))


@dataclass(frozen=True, kw_only=True)
class ApplicationStats:
    """What the application did and saw, since it started.

    Args:
        operations: by query; failed ones included.
        errors: by query, only queries with any.
        under_way: operations sent and not yet answered.
        in_maintenance: whether it has stopped its traffic because the flag says so.
        paused_seconds: how long it has been stopped, in all.
    """

    operations: Mapping[str, int]
    errors: Mapping[str, int]
    under_way: int
    in_maintenance: bool
    paused_seconds: float

    @property
    def error_ratio(self) -> float:
        """Share of operations that failed; 0 before the first."""
        total = sum(self.operations.values())
        return sum(self.errors.values()) / total if total else 0.0


class ApplicationProcess(ChildHandle):
    """The running application; a context manager that stops it. See :func:`start_application`."""

    def __init__(self, child: Child) -> None:
        super().__init__(child)
        self.url: str = child.ready["url"]

    @property
    def metrics_url(self) -> str:
        """Prometheus text, or OpenMetrics with exemplars."""
        return f"{self.url}/metrics"

    @property
    def health_url(self) -> str:
        """200 if the last user lookup worked or the application is in maintenance, else 503."""
        return f"{self.url}/api/health"

    def stats(self) -> ApplicationStats:
        """The figures now."""
        return ApplicationStats(**self._child.ask({"do": "stats"}))


def start_application(
    host: str, project: str, *, rate: float = 50.0, seed: int = 0, port: int = 0, by_key: bool = False
) -> ApplicationProcess:
    """Start the application in front of a database that holds the first user's data.

    Args:
        host: ``host:port`` of the Firestore, or of a proxy in front of it.
        rate: operations a second.
        by_key: read queues by document name; see :class:`agent.sandbox.traffic.Traffic`.

    Raises:
        Misconfigured: ADDRESS if nothing answers at ``host`` or the project has no users or lessons.
        Transient: ``WORKER_DIED`` if the process doesn't come up.
    """
    arguments = ["--host", host, "--project", project, "--rate", str(rate), "--seed", str(seed), "--port", str(port)]
    if by_key:
        arguments.append("--by-key")
    # Generous: its first queries make the sandbox build indexes, and warm Google's emulator up.
    child = Child("agent.sandbox.application", arguments, name="application", ready_within=120)
    if "error" in child.ready:
        child.stop()
        raise Misconfigured(MisconfiguredReason.ADDRESS, child.ready["error"], hint=child.ready["hint"])
    return ApplicationProcess(child)
