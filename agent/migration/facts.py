"""What a plan rests on, gathered by :class:`agent.migration.facade.Migrations` and handed to the pure part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.firestore import NEW_COLLECTION, RateLimit
from agent.migration.throttle import LoadLimits


@dataclass(frozen=True, kw_only=True)
class RestorePoint:
    """A backup that the database could be restored from.

    Args:
        id: the backup's.
        read_time: the instant whose state it holds.
        verified: its checksums were read back and found right.
    """

    id: str
    read_time: datetime
    verified: bool


RestorePointSource = Callable[[], RestorePoint | None]
"""Tells the newest backup, verified or not; ``None`` if there is none."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A throughput.

    Args:
        documents_per_second: positive.
        source: where the figure comes from, for people: ``"measured on run-..."``.
    """

    documents_per_second: float
    source: str


@dataclass(frozen=True, kw_only=True)
class StampedField:
    """A field that the transform sets on every sampled document.

    Args:
        collection, path: where.
        rises: its values only rise, or only fall, in the order in which the documents were transformed.
        now: its values are the time of the transform, or differ when one document is transformed twice.
    """

    collection: str
    path: str
    rises: bool
    now: bool


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What the transform did to a sample of the documents.

    Args:
        seen: by collection, how many documents were sampled.
        creates: by collection that was sampled, how many documents it would create in which collections.
    """

    seen: Mapping[str, int] = field(default_factory=dict)
    changed: int = 0
    failures: tuple[str, ...] = ()
    creates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    stamped: tuple[StampedField, ...] = ()

    @property
    def documents(self) -> int:
        """How many were sampled in all."""
        return sum(self.seen.values())


@dataclass(frozen=True, kw_only=True)
class History:
    """What is known of earlier runs of the revision, from the database's own record and this machine's.

    Args:
        state: of the latest run: ``done``, ``failed``, ``undone``, ``running``, ...; empty if it never ran.
        run: its id.
        checksum: of the file as it ran.
        alive: a process works on it now.
    """

    state: str = ""
    run: str = ""
    checksum: str = ""
    alive: bool = False


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a plan rests on.

    Args:
        counts: documents by collection.
        order: collection ids in the runbook's priority order.
        priorities: the runbook's word for each collection.
        rate, undo_rate: measured throughput; ``None`` if nothing has been measured.
        rate_limit: documents/s at which the run is capped; ``None``: uncapped.
        undo_budget: what the runbook allows for the undo; ``None``: it does not say.
        restore_point: the newest backup.
        maintenance: maintenance mode is on.
        again: somebody said explicitly that a revision which ran or failed may run again.
        disarmed: why somebody gives up the automatic rollback, and with it the budget; empty if nobody does.
        fresh: collections that are empty and would be created in, with about how many documents.
        ramp: how fast the run would create documents in them.
    """

    now: datetime
    counts: Mapping[str, int]
    order: Sequence[str] = ()
    priorities: Mapping[str, str]
    rate: Rate | None = None
    undo_rate: Rate | None = None
    rate_limit: float | None = None
    undo_budget: timedelta | None = None
    restore_point: RestorePoint | None = None
    restore_point_max_age: timedelta = timedelta(hours=24)
    maintenance: bool = False
    history: History = History()
    sampled: Sampled = Sampled()
    again: bool = False
    disarmed: str = ""
    fresh: Mapping[str, float] = field(default_factory=dict)
    ramp: RateLimit = NEW_COLLECTION


@dataclass(frozen=True, kw_only=True)
class RunbookPolicy:
    """What the runbook says about migrations.

    Args:
        order: collection id to priority, in the runbook's order.
        undo_budget: time for the undo; ``None``: it sets none.
        limits: the load at which a run slows down, and at which it stops.
    """

    order: Mapping[str, str] = field(default_factory=dict)
    undo_budget: timedelta | None = None
    limits: LoadLimits = field(default_factory=LoadLimits)


@dataclass(frozen=True, kw_only=True)
class QueryCheck:
    """One of the page's critical queries, asked on the migrated database.

    Args:
        p95, target: seconds; ``p95`` is ``None`` where it was not answered.
        problem: why it fails, or was not asked; being slower than the target is not one: ``runbookd perf`` judges that.
        failed: it was asked and is not answered.
    """

    query: str
    p95: float | None
    target: float
    problem: str = ""
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Preconditions:
    """What preflight asks of other rooms.

    Args:
        restore_point: the newest backup; ``None``: there are no backups.
        max_age: of a restore point.
        maintenance: whether maintenance mode is on.
        queries: asks the page's critical queries, for validation.
    """

    restore_point: RestorePointSource | None = None
    max_age: timedelta = timedelta(hours=24)
    maintenance: Callable[[], bool] = lambda: False
    queries: Callable[[], Sequence[QueryCheck]] = tuple
