"""What the API shows, as the daemon hands it in.

The API asks; it never reaches into another room's state. Each callable returns at once with what is known (the
daemon's own figures, a snapshot kept by a probe), because a status page that waits for a broken database is no use
in an outage. JSON bodies hold base units: seconds, bytes, ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from prometheus_client.core import Metric

from agent.alerting import RuleEvaluator
from agent.clock import Clock, SystemClock
from agent.promql import Engine
from agent.runbook import Policy
from agent.samples import SeriesStore
from agent.telemetry import CATALOGUE

Body = Mapping[str, Any]


class Control(Protocol):
    """What may be done over HTTP with the bearer token; each returns a body, or raises a RunbookdError."""

    def hold(self, *, owner: str, reason: str, seconds: float) -> Body: ...

    def release(self, *, owner: str) -> Body: ...

    def approve(self, decision_id: str, *, owner: str) -> Body: ...

    def abort(self, decision_id: str, *, owner: str, reason: str) -> Body: ...

    def maintenance(self, *, enabled: bool, message: str, owner: str) -> Body: ...

    def pause(self, run_id: str, *, owner: str, reason: str, seconds: float | None) -> Body: ...

    def resume(self, run_id: str, *, owner: str) -> Body: ...

    def set(self, run_id: str, *, owner: str, reason: str, batch_size: int | None, rate: float | None) -> Body: ...

    def reload(self) -> Body: ...


class Queried(Protocol):
    """What Prometheus's read API asks: a daemon's :class:`Sources`, or a recording that is played back."""

    @property
    def store(self) -> SeriesStore: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def rules(self) -> RuleEvaluator: ...

    @property
    def clock(self) -> Clock: ...

    def metadata(self) -> dict[str, list[dict[str, Any]]]:
        """Type, help and unit by metric."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Everything the API reads.

    Args:
        problems: what is wrong with the agent itself, by component; empty when ready.
        alive: the rule loop ticks; ``/healthz`` says 503 if not.
        database_health, migration_status, backup_status, metrics: bodies of the page's four endpoints. The first
            has ``status`` (``ok``, ``degraded``, ``unreachable``).
        families: every metric, for ``/metrics``.
        recent: what happened lately, newest first, as ``{"at": RFC 3339, "title": ..., "detail": ..., "mark": ...}``.
        schedule: when each job is due next.
        automation: hold, waiting decisions, what was decided lately.
        control: what the token's bearer may do; ``None`` offers nothing.
        token: bearer token of the control endpoints; ``None`` closes them.
    """

    policy: Callable[[], Policy]
    store: SeriesStore
    engine: Engine
    rules: RuleEvaluator
    started_at: datetime
    alive: Callable[[], bool]
    problems: Callable[[], Mapping[str, str]]
    database_health: Callable[[], Body]
    migration_status: Callable[[], Body]
    backup_status: Callable[[], Body]
    metrics: Callable[[], Body]
    families: Callable[[], list[Metric]]
    recent: Callable[[], Sequence[Body]]
    schedule: Callable[[], Mapping[str, datetime]]
    automation: Callable[[], Body]
    control: Control | None = None
    token: str | None = None
    clock: Clock = field(default_factory=SystemClock)

    def metadata(self) -> dict[str, list[dict[str, Any]]]:
        """From the catalogue: what other processes say of their metrics is not kept."""
        return {
            spec.prometheus_name: [{"type": str(spec.kind), "help": spec.description, "unit": ""}] for spec in CATALOGUE
        }
