"""What a decision rests on, as values: nothing here is looked up while deciding.

The daemon gathers one :class:`Evidence` after each pass over the rules and hands it to the decision; its
:meth:`Evidence.snapshot` goes into the journal, so that anybody can see later what was known at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from agent.alerting import Alert
from agent.clock import rfc3339


class ChangeState(StrEnum):
    """Where a migration run is."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    UNDOING = "undoing"
    UNDONE = "undone"


@dataclass(frozen=True, kw_only=True)
class ChangeUnderWatch:
    """The active migration run, or the most recent one.

    Args:
        run_id: the run that a decision is bound to.
        revision: the migration's name, for people.
        finished_at: None while it runs.
        rolls_back: the run that this one undoes, ``""`` for an ordinary migration.
        disarmed: why it was started without its automatic rollback, ``""`` if it has one.
    """

    run_id: str
    revision: str
    state: ChangeState
    started_at: datetime
    finished_at: datetime | None = None
    collections: tuple[str, ...] = ()
    rolls_back: str = ""
    disarmed: str = ""


@dataclass(frozen=True, kw_only=True)
class RestoreCertificate:
    """What can be gone back to, and how long that takes.

    Args:
        backup_id: newest verified full backup from before the change, ``""`` if there is none.
        backup_at: that backup's read_time.
        journal: the undo journal of the change under watch is present and readable.
        undo_estimate: undoing by journal (or re-read), at the throughput measured; None if not known.
        restore_estimate: restoring the backup in place; None if not known.
        steps_estimate: the other steps of a recovery together (maintenance on and off, caches, health check).
    """

    backup_id: str = ""
    backup_at: datetime | None = None
    journal: bool = False
    undo_estimate: timedelta | None = None
    restore_estimate: timedelta | None = None
    steps_estimate: timedelta = timedelta()


class Probe(StrEnum):
    """What a check that doesn't share the alert's signal says about the database."""

    CONFIRMS = "confirms"
    DENIES = "denies"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything known at one moment.

    Args:
        alerts: alerts of matrix rules that fire or are recovering, blind ones included.
        operations: database operations seen in the window that the ratio rules look at; None if not known.
        baseline: a comparable latency baseline was recorded before the change started.
        recovery: id of the recovery that is running or stuck, ``""`` if none.
        maintenance: maintenance mode is on; None if it could not be read.
    """

    alerts: tuple[Alert, ...] = ()
    change: ChangeUnderWatch | None = None
    restore: RestoreCertificate = RestoreCertificate()
    operations: float | None = None
    baseline: bool = False
    probe: Probe = Probe.UNKNOWN
    recovery: str = ""
    maintenance: bool | None = None

    def snapshot(self) -> dict[str, object]:
        """The evidence as JSON-able values: times in RFC 3339, durations in seconds."""
        return {
            "alerts": [_alert(alert) for alert in self.alerts],
            "change": _change(self.change),
            "restore": _restore(self.restore),
            "operations": self.operations,
            "baseline": self.baseline,
            "probe": str(self.probe),
            "recovery": self.recovery,
            "maintenance": self.maintenance,
        }


def _alert(alert: Alert) -> dict[str, object]:
    return {
        "fingerprint": alert.fingerprint,
        "rule": alert.rule,
        "labels": dict(alert.labels),
        "state": str(alert.state),
        "value": alert.value,
        "active_since": rfc3339(alert.active_since),
        "blind": alert.blind,
        "trace_id": alert.trace_id,
    }


def _change(change: ChangeUnderWatch | None) -> dict[str, object] | None:
    if change is None:
        return None
    return {
        "run_id": change.run_id,
        "revision": change.revision,
        "state": str(change.state),
        "started_at": rfc3339(change.started_at),
        "finished_at": rfc3339(change.finished_at) if change.finished_at else None,
        "collections": list(change.collections),
        "rolls_back": change.rolls_back,
        "disarmed": change.disarmed,
    }


def _restore(restore: RestoreCertificate) -> dict[str, object]:
    return {
        "backup_id": restore.backup_id,
        "backup_at": rfc3339(restore.backup_at) if restore.backup_at else None,
        "journal": restore.journal,
        "undo_estimate_seconds": _seconds(restore.undo_estimate),
        "restore_estimate_seconds": _seconds(restore.restore_estimate),
        "steps_estimate_seconds": restore.steps_estimate.total_seconds(),
    }


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
