"""What keeps the automation from acting: people (holds, aborts, missing approvals) and limits on disk.

:class:`Restraint` is the value that the decision reads; :class:`RestraintBook` keeps it in the state file, where the
command line writes holds, approvals and aborts while the daemon runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from sqlite3 import Row

from agent.clock import rfc3339
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason
from agent.state import StateFile


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The figures of the guards.

    Args:
        observation: how long after its end a run may still be rolled back.
        cooldown: pause after a rollback before another one may start by itself.
        daily_limit: rollbacks within 24 hours.
        minimum_operations: traffic below which a ratio says nothing.
        reread: how long after the start of a run its before-images can still be read from the database. Firestore
            keeps old versions for one hour; the difference is the time that reading them takes.
    """

    observation: timedelta = timedelta(minutes=30)
    cooldown: timedelta = timedelta(minutes=15)
    daily_limit: int = 3
    minimum_operations: float = 100
    reread: timedelta = timedelta(minutes=55)


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Somebody told the automation to keep its hands off, until ``expires_at`` at the latest."""

    id: int
    owner: str
    reason: str
    placed_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A full restore of one run has been approved."""

    decision_id: str
    run_id: str
    owner: str
    given_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Abort:
    """Somebody decided that this run is not to be rolled back by the automation any more."""

    decision_id: str
    run_id: str
    owner: str
    reason: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class PastRollback:
    """A rollback that was decided; ``concluded_at`` is None while it runs."""

    decision_id: str
    run_id: str
    decided_at: datetime
    concluded_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Restraint:
    """All restraint at one moment; expiry is judged by whoever reads it, against its own ``now``."""

    limits: Limits = Limits()
    holds: tuple[Hold, ...] = ()
    approvals: tuple[Approval, ...] = ()
    aborts: tuple[Abort, ...] = ()
    rollbacks: tuple[PastRollback, ...] = ()

    def hold(self, now: datetime) -> Hold | None:
        """The hold in force that lasts longest, if any."""
        valid = [hold for hold in self.holds if now < hold.expires_at]
        return max(valid, key=lambda hold: hold.expires_at, default=None)

    def approval(self, run_id: str, now: datetime) -> Approval | None:
        """A valid approval for ``run_id``, if any."""
        return next((item for item in self.approvals if item.run_id == run_id and now < item.expires_at), None)

    def abort(self, run_id: str) -> Abort | None:
        """The abort of ``run_id``, if any; it doesn't expire, because the run stays the same run."""
        return next((item for item in self.aborts if item.run_id == run_id), None)

    def rollback(self, run_id: str) -> PastRollback | None:
        """The rollback of ``run_id`` that was decided earlier, if any."""
        return next((item for item in self.rollbacks if item.run_id == run_id), None)


_SCHEMA = (
    """
    CREATE TABLE automation_hold (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        owner TEXT NOT NULL,
        reason TEXT NOT NULL,
        placed_at TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        ended_at TEXT,
        ended_by TEXT
    );
    CREATE TABLE automation_approval (
        decision_id TEXT PRIMARY KEY,
        run_id TEXT NOT NULL,
        owner TEXT NOT NULL,
        given_at TEXT NOT NULL,
        expires_at TEXT NOT NULL
    );
    CREATE TABLE automation_abort (
        decision_id TEXT PRIMARY KEY,
        run_id TEXT NOT NULL,
        owner TEXT NOT NULL,
        reason TEXT NOT NULL,
        at TEXT NOT NULL
    );
    """,
)


class RestraintBook:
    """Holds, approvals and aborts on disk, shared by the daemon and the command line."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        state.ensure("decisions.restraint", _SCHEMA)

    def place(self, *, owner: str, reason: str, now: datetime, lasting: timedelta) -> Hold:
        """Put a hold on the automation.

        Raises:
            Refused: no owner, no reason or no positive duration: an override that nobody answers for, or that
                never ends, is one that everybody forgets.
        """
        _answered_for(owner, reason)
        if lasting <= timedelta():
            raise Refused(RefusedReason.NOT_CONFIRMED, "a hold needs a duration above zero", hint="give --for, e.g. 1h")
        expires = now + lasting
        with self._state.transaction() as tx:
            cursor = tx.execute(
                "INSERT INTO automation_hold (owner, reason, placed_at, expires_at) VALUES (?, ?, ?, ?)",
                (owner, reason, rfc3339(now), rfc3339(expires)),
            )
            number = cursor.lastrowid or 0
        return Hold(id=number, owner=owner, reason=reason, placed_at=now, expires_at=expires)

    def release(self, *, owner: str, now: datetime) -> tuple[Hold, ...]:
        """End every hold; returns those that were in force."""
        with self._state.transaction() as tx:
            rows = tx.execute("SELECT * FROM automation_hold WHERE ended_at IS NULL").fetchall()
            tx.execute(
                "UPDATE automation_hold SET ended_at = ?, ended_by = ? WHERE ended_at IS NULL", (rfc3339(now), owner)
            )
        return tuple(hold for hold in map(_hold, rows) if now < hold.expires_at)

    def expire(self, now: datetime) -> tuple[Hold, ...]:
        """Holds that ran out since the last call, each returned once, so that their end can be announced."""
        if not (self.holds() and any(hold.expires_at <= now for hold in self.holds())):
            return ()
        with self._state.transaction() as tx:
            rows = tx.execute("SELECT * FROM automation_hold WHERE ended_at IS NULL").fetchall()
            ended = [hold for hold in map(_hold, rows) if hold.expires_at <= now]
            tx.executemany(
                "UPDATE automation_hold SET ended_at = ?, ended_by = 'expiry' WHERE id = ?",
                [(rfc3339(hold.expires_at), hold.id) for hold in ended],
            )
        return tuple(ended)

    def approve(self, *, decision_id: str, run_id: str, owner: str, now: datetime, lasting: timedelta) -> Approval:
        """Approve the full restore that ``decision_id`` waits with."""
        _answered_for(owner, "approved")
        approval = Approval(decision_id=decision_id, run_id=run_id, owner=owner, given_at=now, expires_at=now + lasting)
        with self._state.transaction() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO automation_approval VALUES (?, ?, ?, ?, ?)",
                (decision_id, run_id, owner, rfc3339(now), rfc3339(approval.expires_at)),
            )
        return approval

    def abort(self, *, decision_id: str, run_id: str, owner: str, reason: str, now: datetime) -> Abort:
        """Take ``run_id`` out of the automation's hands for good."""
        _answered_for(owner, reason)
        with self._state.transaction() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO automation_abort VALUES (?, ?, ?, ?, ?)",
                (decision_id, run_id, owner, reason, rfc3339(now)),
            )
        return Abort(decision_id=decision_id, run_id=run_id, owner=owner, reason=reason, at=now)

    def holds(self) -> tuple[Hold, ...]:
        """Holds that nobody has ended, in the order in which they were placed."""
        return tuple(map(_hold, self._state.query("SELECT * FROM automation_hold WHERE ended_at IS NULL ORDER BY id")))

    def snapshot(self, limits: Limits, rollbacks: Sequence[PastRollback]) -> Restraint:
        """Everything on disk as one value; ``rollbacks`` come from the decision journal."""
        approvals = tuple(
            Approval(
                decision_id=row["decision_id"],
                run_id=row["run_id"],
                owner=row["owner"],
                given_at=datetime.fromisoformat(row["given_at"]),
                expires_at=datetime.fromisoformat(row["expires_at"]),
            )
            for row in self._state.query("SELECT * FROM automation_approval ORDER BY given_at")
        )
        aborts = tuple(
            Abort(
                decision_id=row["decision_id"],
                run_id=row["run_id"],
                owner=row["owner"],
                reason=row["reason"],
                at=datetime.fromisoformat(row["at"]),
            )
            for row in self._state.query("SELECT * FROM automation_abort ORDER BY at")
        )
        return Restraint(
            limits=limits, holds=self.holds(), approvals=approvals, aborts=aborts, rollbacks=tuple(rollbacks)
        )


def _hold(row: Row) -> Hold:
    return Hold(
        id=row["id"],
        owner=row["owner"],
        reason=row["reason"],
        placed_at=datetime.fromisoformat(row["placed_at"]),
        expires_at=datetime.fromisoformat(row["expires_at"]),
    )


def _answered_for(owner: str, reason: str) -> None:
    if not owner.strip() or not reason.strip():
        raise Refused(RefusedReason.NOT_CONFIRMED, "an override needs an owner and a reason", hint="give both in words")


def unknown_decision(decision_id: str) -> Permanent:
    """The error for an id that the journal doesn't know."""
    return Permanent(
        PermanentReason.NOT_FOUND,
        f"there is no decision {decision_id!r}",
        hint="runbookd automation status lists those that wait",
    )
