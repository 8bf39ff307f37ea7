"""The sandbox's companion processes as their parent sees them.

Called by the demo, by drills and by tests. The processes themselves are :mod:`agent.sandbox.proxy` and
:mod:`agent.sandbox.application`; both end with their parent.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from agent.sandbox.child import Child
from agent.sandbox.injection import Fault, ProxyStats


class ProxyProcess:
    """A running proxy; a context manager that stops it. See :func:`start_proxy`."""

    def __init__(self, child: Child) -> None:
        self._child = child
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

    def stop(self) -> None:
        """End the process and the calls in it."""
        self._child.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

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
