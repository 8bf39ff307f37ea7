"""The outbox: every notification on disk before it is sent, and its receipt after.

The promise: a notification that was added is delivered at least once or recorded as failed, whatever dies in between.
A crash between the vendor's answer and the receipt sends it again, with the same id and dedup_key. Notifications with
the same dedup_key reach one channel in the order in which they were added: a resolve can't overtake its trigger, and
the trigger of a new incident can't be overtaken by the resolve of the one before.

Written by the notifier inside the transaction that changes the incident; read by one worker a channel.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from sqlite3 import Row

from agent.clock import rfc3339
from agent.notifications.channel import Notification, Receipt, from_json, to_json
from agent.runbook import ChannelKind
from agent.state import StateFile, Transaction


class DeliveryState(StrEnum):
    """Where a notification is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class RetryPlan:
    """How often and how patiently a notification is offered again.

    Waits double from ``first`` to ``longest``, each shortened by up to half at random, so that a vendor which comes
    back is not met by everybody at once. With these figures the attempts end after about four hours; by then people
    have been told on another channel, which happens after ``report_after`` attempts.

    Args:
        patience: the longest Retry-After that is believed.
    """

    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(minutes=5)
    attempts: int = 70
    report_after: int = 4
    patience: timedelta = timedelta(minutes=15)

    def wait(self, attempt: int, retry_after: float | None, chance: random.Random) -> timedelta:
        """Time until the next attempt, after ``attempt`` failed ones (1 or more)."""
        doubled: timedelta = self.first * 2 ** min(attempt - 1, 30)
        wait = min(doubled, self.longest) * (1 - chance.random() / 2)
        asked = timedelta(seconds=retry_after) if retry_after is not None else timedelta()
        return max(wait, min(asked, self.patience))


@dataclass(frozen=True, kw_only=True)
class OutboxEntry:
    """A notification and what has become of it."""

    number: int
    notification: Notification
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    delivered_at: datetime | None = None
    receipt: str = ""
    error: str = ""


_SCHEMA = (
    """
    CREATE TABLE outbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        incident INTEGER NOT NULL,
        channel TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        dedup_key TEXT NOT NULL,
        created_at TEXT NOT NULL,
        body TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending',
        attempts INTEGER NOT NULL DEFAULT 0,
        next_attempt REAL NOT NULL,
        delivered_at TEXT,
        receipt TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX outbox_heads ON outbox (state, channel, dedup_key, number);
    CREATE UNIQUE INDEX outbox_once ON outbox (incident, channel, sequence) WHERE incident > 0;
    """,
)

# Head of its queue: nothing older with the same key waits for the same channel. The last term lets a row go whose time
# lies absurdly far ahead because the wall clock was set back after it was scheduled.
_NEXT = """
    SELECT * FROM outbox AS mine
    WHERE state = 'pending' AND channel = ? AND (next_attempt <= ? OR next_attempt > ?)
      AND NOT EXISTS (
        SELECT 1 FROM outbox AS older
        WHERE older.state = 'pending' AND older.channel = mine.channel AND older.dedup_key = mine.dedup_key
          AND older.number < mine.number)
    ORDER BY number LIMIT 1
"""
_WHEN = """
    SELECT min(next_attempt) AS due FROM outbox AS mine
    WHERE state = 'pending' AND channel = ?
      AND NOT EXISTS (
        SELECT 1 FROM outbox AS older
        WHERE older.state = 'pending' AND older.channel = mine.channel AND older.dedup_key = mine.dedup_key
          AND older.number < mine.number)
"""


class Outbox:
    """Notifications on disk."""

    def __init__(self, state: StateFile, plan: RetryPlan | None = None) -> None:
        self.plan = plan or RetryPlan()
        self._state = state
        state.ensure("notifications.outbox", _SCHEMA)

    def add(self, tx: Transaction, notification: Notification) -> None:
        """Write ``notification`` down, due at once, within the caller's transaction."""
        tx.execute(
            "INSERT INTO outbox (id, incident, channel, sequence, dedup_key, created_at, body, next_attempt) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                notification.id,
                notification.incident,
                notification.channel,
                notification.sequence,
                notification.dedup_key,
                rfc3339(notification.created_at),
                to_json(notification),
                notification.created_at.timestamp(),
            ),
        )

    def add_failed(self, tx: Transaction, notification: Notification, error: str) -> None:
        """Record a notification that can't even be tried, so that it shows up among the deliveries."""
        self.add(tx, notification)
        tx.execute("UPDATE outbox SET state = 'failed', error = ? WHERE id = ?", (error, notification.id))

    def next(self, channel: ChannelKind, now: datetime) -> OutboxEntry | None:
        """The oldest notification for ``channel`` that is due and that nothing with the same key precedes."""
        moment = now.timestamp()
        absurd = moment + 2 * self.plan.patience.total_seconds()
        rows = self._state.query(_NEXT, (channel, moment, absurd))
        return _entry(rows[0]) if rows else None

    def due_in(self, channel: ChannelKind, now: datetime) -> timedelta | None:
        """Time until :meth:`next` has something for ``channel`` (zero or less: now); None if nothing waits."""
        due = self._state.query(_WHEN, (channel,))[0]["due"]
        return None if due is None else timedelta(seconds=due - now.timestamp())

    def delivered(self, entry: OutboxEntry, receipt: Receipt, now: datetime) -> None:
        """Keep the vendor's receipt; its remark takes the place of an earlier attempt's error."""
        with self._state.transaction() as tx:
            tx.execute(
                "UPDATE outbox SET state = 'delivered', attempts = attempts + 1, delivered_at = ?, receipt = ?, "
                "error = ? WHERE number = ?",
                (rfc3339(now), receipt.reference, receipt.remark, entry.number),
            )

    def retry(self, tx: Transaction, entry: OutboxEntry, error: str, at: datetime) -> None:
        """The attempt failed; the next one is due ``at``."""
        tx.execute(
            "UPDATE outbox SET attempts = attempts + 1, error = ?, next_attempt = ? WHERE number = ?",
            (error, at.timestamp(), entry.number),
        )

    def failed(self, tx: Transaction, entry: OutboxEntry, error: str) -> None:
        """Give ``entry`` up; what stands behind it goes on."""
        tx.execute(
            "UPDATE outbox SET state = 'failed', attempts = attempts + 1, error = ? WHERE number = ?",
            (error, entry.number),
        )

    def pending(self) -> Mapping[ChannelKind, int]:
        """How many notifications wait, by channel; channels with none are left out."""
        rows = self._state.query("SELECT channel, count(*) AS n FROM outbox WHERE state = 'pending' GROUP BY channel")
        return {ChannelKind(row["channel"]): int(row["n"]) for row in rows}

    def entries(self, *, incident: int | None = None, limit: int = 200) -> tuple[OutboxEntry, ...]:
        """The newest entries, oldest first; of one incident if ``incident`` is given."""
        where, parameters = ("", []) if incident is None else ("WHERE incident = ?", [incident])
        rows = self._state.query(f"SELECT * FROM outbox {where} ORDER BY number DESC LIMIT ?", (*parameters, limit))
        return tuple(_entry(row) for row in reversed(rows))

    def prune(self, before: datetime) -> None:
        """Forget what was delivered or given up before ``before``."""
        with self._state.transaction() as tx:
            tx.execute("DELETE FROM outbox WHERE state <> 'pending' AND created_at < ?", (rfc3339(before),))


def _entry(row: Row) -> OutboxEntry:
    return OutboxEntry(
        number=row["number"],
        notification=from_json(row["body"]),
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        next_attempt_at=datetime.fromtimestamp(row["next_attempt"], UTC),
        delivered_at=datetime.fromisoformat(row["delivered_at"]) if row["delivered_at"] else None,
        receipt=row["receipt"],
        error=row["error"],
    )
