"""How the scheduled backups went: what "1 missed" and "2 consecutive" are counted from.

The scheduler records every attempt that was due, in the state file, so that a restart of the daemon forgets none of
them; the gauge ``runbookd.backup.consecutive.failures`` is read from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from agent.backup.manifest import BackupType
from agent.state import StateFile

_ROOM = "backup"
_STEPS = (
    """
    CREATE TABLE backup_attempt (
        type TEXT NOT NULL,
        due_at TEXT NOT NULL,
        outcome TEXT NOT NULL,
        backup TEXT NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (type, due_at)
    );
    """,
)
_KEPT_PER_TYPE = 1000


class Outcome(StrEnum):
    """How an attempt that was due ended, or that it has not yet."""

    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"
    MISSED = "missed"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One scheduled backup.

    Args:
        type: what was to be made.
        due_at: when it was to start; an attempt is identified by type and this time.
        outcome: how it ended; ``MISSED`` if it never started, ``RUNNING`` if it has not ended.
        backup: id of the backup, where there is one.
        detail: the error in a sentence, or empty.
    """

    type: BackupType
    due_at: datetime
    outcome: Outcome
    backup: str = ""
    detail: str = ""


def consecutive_failures(outcomes: Iterable[Outcome]) -> int:
    """How many attempts in a row, counted back from the newest that ended, did not end well.

    Args:
        outcomes: newest first.
    """
    count = 0
    for outcome in outcomes:
        if outcome is Outcome.OK:
            break
        count += outcome is not Outcome.RUNNING
    return count


def missed_since(last_due: datetime, now: datetime, every: timedelta) -> list[datetime]:
    """The due times after ``last_due`` that passed while nobody was there, oldest first.

    A due time counts as missed once the next one has come as well: until then the scheduler may still make it up.
    """
    missed = []
    due = last_due + every
    while due + every <= now:
        missed.append(due)
        due += every
    return missed


class BackupHistory:
    """The record of scheduled backups in the state file. Shared by the daemon and the command line."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        state.ensure(_ROOM, _STEPS)

    def record(self, attempt: Attempt) -> None:
        """Write an attempt down; a second record of the same due time replaces the first."""
        with self._state.transaction() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO backup_attempt (type, due_at, outcome, backup, detail) VALUES (?, ?, ?, ?, ?)",
                (attempt.type, _utc(attempt.due_at), attempt.outcome, attempt.backup, attempt.detail),
            )
            tx.execute(
                "DELETE FROM backup_attempt WHERE type = ? AND due_at NOT IN "
                "(SELECT due_at FROM backup_attempt WHERE type = ? ORDER BY due_at DESC LIMIT ?)",
                (attempt.type, attempt.type, _KEPT_PER_TYPE),
            )

    def attempts(self, kind: BackupType, limit: int = 100) -> list[Attempt]:
        """The newest attempts of ``kind``, newest first."""
        rows = self._state.query(
            "SELECT * FROM backup_attempt WHERE type = ? ORDER BY due_at DESC LIMIT ?", (kind, limit)
        )
        return [
            Attempt(
                type=BackupType(row["type"]),
                due_at=datetime.fromisoformat(row["due_at"]),
                outcome=Outcome(row["outcome"]),
                backup=row["backup"],
                detail=row["detail"],
            )
            for row in rows
        ]

    def consecutive_failures(self, kind: BackupType) -> int:
        """Scheduled backups of ``kind`` that failed or were missed in a row; 0 after a success or before the first."""
        return consecutive_failures(attempt.outcome for attempt in self.attempts(kind, _KEPT_PER_TYPE))

    def record_abandoned(self) -> list[Attempt]:
        """Write down as failed what an earlier process began and did not live to end; called when the daemon starts.

        Returns:
            What was written.
        """
        abandoned = []
        for kind in BackupType:
            for attempt in self.attempts(kind, _KEPT_PER_TYPE):
                if attempt.outcome is Outcome.RUNNING:
                    ended = replace(attempt, outcome=Outcome.FAILED, detail="runbookd ended while it ran")
                    self.record(ended)
                    abandoned.append(ended)
        return abandoned

    def record_missed(self, schedule: Mapping[BackupType, timedelta], now: datetime) -> list[Attempt]:
        """Write down what was due while the daemon was down; called when it starts.

        Args:
            schedule: how often each type is due. A type that was never attempted has missed nothing.
            now: the present.

        Returns:
            What was written, oldest first within a type.
        """
        missed = []
        for kind, every in schedule.items():
            newest = self.attempts(kind, 1)
            if not newest:
                continue
            for due in missed_since(newest[0].due_at, now, every):
                attempt = Attempt(type=kind, due_at=due, outcome=Outcome.MISSED, detail="runbookd was not running")
                self.record(attempt)
                missed.append(attempt)
        return missed


def _utc(moment: datetime) -> str:
    """Sortable as text: always UTC, always microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
