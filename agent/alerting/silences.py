"""Silences and acknowledgements: what people have said about alerts, on disk, each with an owner and a reason.

A silence keeps alerts that match it from causing notifications until it ends; an acknowledgement of one alert stops
the reminders while that alert goes on. Neither changes an alert's state, nor what the automation does about it, nor
that whoever was told of an incident is told of its end. Written by the command line, read by the daemon's notifier.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from sqlite3 import Row

from agent.alerting.alert import Alert
from agent.clock import rfc3339
from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason, Refused, RefusedReason
from agent.samples import Matcher, MatchOperator
from agent.samples.matchers import compiled
from agent.state import StateFile

_SCHEMA = (
    """
    CREATE TABLE alerting_silence (
        id TEXT PRIMARY KEY,
        matchers TEXT NOT NULL,
        owner TEXT NOT NULL,
        reason TEXT NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        ended_by TEXT NOT NULL DEFAULT '',
        said INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE alerting_acknowledgement (
        fingerprint TEXT PRIMARY KEY,
        active_since TEXT NOT NULL,
        owner TEXT NOT NULL,
        at TEXT NOT NULL
    );
    """,
)

# Long enough for a long weekend; what should be silent for ever is a rule to be changed.
LONGEST = timedelta(days=7)

_MATCHER = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Alerts whose labels satisfy all ``matchers`` are not told of until ``expires_at``.

    Args:
        ended_by: who ended it before its time; "" if nobody did.
    """

    id: str
    matchers: tuple[Matcher, ...]
    owner: str
    reason: str
    created_at: datetime
    expires_at: datetime
    ended_by: str = ""

    def covers(self, alert: Alert, now: datetime) -> bool:
        """Whether the silence is in force and ``alert`` is one of those it means."""
        labels = {**alert.labels, "alertname": alert.rule}
        return now < self.expires_at and all(each.matches(labels.get(each.name, "")) for each in self.matchers)

    @property
    def wording(self) -> str:
        return ", ".join(str(each) for each in self.matchers)


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """Somebody has an alert in hand, for as long as it goes on: since ``active_since`` without an end."""

    fingerprint: str
    active_since: datetime
    owner: str
    at: datetime


def parse_matcher(text: str) -> Matcher:
    """A matcher as people write it: ``condition=error_rate``, ``alertname=~"Query.*"``.

    Raises:
        Misconfigured: it is none.
        Refused: its regular expression is not supported.
    """
    found = _MATCHER.fullmatch(text)
    if found is None:
        raise Misconfigured(
            MisconfiguredReason.RULES, f"{text!r} is no matcher", hint="write label=value, or != =~ !~ in place of ="
        )
    name, operator, value = found.groups()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    matcher = Matcher(MatchOperator(operator), name, value)
    if matcher.operator in (MatchOperator.MATCHES, MatchOperator.NOT_MATCHES):
        compiled(value)
    return matcher


class SilenceBook:
    """The tables of silences and acknowledgements; the command line and the daemon each have one over the same file."""

    def __init__(self, state: StateFile, *, new_id: Callable[[], str] = lambda: uuid.uuid4().hex[:8]) -> None:
        self._state = state
        self._new_id = new_id
        state.ensure("alerting.silences", _SCHEMA)

    def add(
        self, matchers: Sequence[Matcher], *, owner: str, reason: str, lasting: timedelta, now: datetime
    ) -> Silence:
        """Silence what ``matchers`` mean for ``lasting``.

        Raises:
            Refused: it would silence everything, has no owner or reason, or lasts longer than :data:`LONGEST`.
        """
        if all(each.matches("") for each in matchers):
            raise Refused(
                RefusedReason.NOT_CONFIRMED,
                "this would silence every alert",
                hint="name a label, e.g. condition=error_rate",
            )
        if not owner.strip() or not reason.strip():
            raise Refused(
                RefusedReason.NOT_CONFIRMED, "a silence needs an owner and a reason", hint="give --owner and --reason"
            )
        if not timedelta(0) < lasting <= LONGEST:
            raise Refused(
                RefusedReason.LIMIT, f"a silence lasts at most {LONGEST.days} days", hint="give a shorter --for"
            )
        made = Silence(
            id=self._new_id(),
            matchers=tuple(matchers),
            owner=owner.strip(),
            reason=reason.strip(),
            created_at=now,
            expires_at=now + lasting,
        )
        written = json.dumps([(each.name, each.operator, each.value) for each in made.matchers])
        with self._state.transaction() as tx:
            tx.execute(
                "INSERT INTO alerting_silence (id, matchers, owner, reason, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (made.id, written, made.owner, made.reason, rfc3339(now), rfc3339(made.expires_at)),
            )
        return made

    def active(self, now: datetime) -> tuple[Silence, ...]:
        """Silences in force, the one that ends first first."""
        rows = self._state.query("SELECT * FROM alerting_silence WHERE said = 0")
        found = (_silence(row) for row in rows)
        return tuple(sorted((each for each in found if now < each.expires_at), key=lambda each: each.expires_at))

    def expire(self, silence_id: str, *, owner: str, now: datetime) -> Silence:
        """End a silence now.

        Raises:
            Permanent: no such silence is in force.
        """
        for each in self.active(now):
            if each.id == silence_id:
                with self._state.transaction() as tx:
                    tx.execute(
                        "UPDATE alerting_silence SET expires_at = ?, ended_by = ? WHERE id = ?",
                        (rfc3339(now), owner, silence_id),
                    )
                return each
        raise Permanent(
            PermanentReason.NOT_FOUND,
            f"no silence {silence_id!r} is in force",
            hint="runbookd silence list shows those that are",
        )

    def ended(self, now: datetime) -> tuple[Silence, ...]:
        """Silences that ended and of whose end nobody has been told yet."""
        rows = self._state.query("SELECT * FROM alerting_silence WHERE said = 0")
        return tuple(each for each in map(_silence, rows) if each.expires_at <= now)

    def said(self, silence: Silence) -> None:
        """The end of ``silence`` has been told."""
        with self._state.transaction() as tx:
            tx.execute("UPDATE alerting_silence SET said = 1 WHERE id = ?", (silence.id,))

    def silenced(self, alert: Alert, now: datetime) -> bool:
        """Whether ``alert`` must not cause a notification now."""
        return any(each.covers(alert, now) for each in self.active(now))

    def acknowledge(self, alert: Alert, *, owner: str, now: datetime) -> Acknowledgement:
        """Note that ``owner`` has ``alert`` in hand.

        Raises:
            Refused: ``owner`` is empty.
        """
        if not owner.strip():
            raise Refused(RefusedReason.NOT_CONFIRMED, "an acknowledgement needs an owner", hint="give --owner")
        with self._state.transaction() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO alerting_acknowledgement (fingerprint, active_since, owner, at)"
                " VALUES (?, ?, ?, ?)",
                (alert.fingerprint, alert.active_since.isoformat(), owner.strip(), rfc3339(now)),
            )
        return Acknowledgement(
            fingerprint=alert.fingerprint, active_since=alert.active_since, owner=owner.strip(), at=now
        )

    def acknowledgement(self, alert: Alert) -> Acknowledgement | None:
        """Who has ``alert`` in hand; an alert that ended and came back is a new one."""
        rows = self._state.query(
            "SELECT * FROM alerting_acknowledgement WHERE fingerprint = ? AND active_since = ?",
            (alert.fingerprint, alert.active_since.isoformat()),
        )
        if not rows:
            return None
        return Acknowledgement(
            fingerprint=alert.fingerprint,
            active_since=alert.active_since,
            owner=rows[0]["owner"],
            at=datetime.fromisoformat(rows[0]["at"]),
        )


def _silence(row: Row) -> Silence:
    return Silence(
        id=row["id"],
        matchers=tuple(
            Matcher(MatchOperator(operator), name, value) for name, operator, value in json.loads(row["matchers"])
        ),
        owner=row["owner"],
        reason=row["reason"],
        created_at=datetime.fromisoformat(row["created_at"]),
        expires_at=datetime.fromisoformat(row["expires_at"]),
        ended_by=row["ended_by"],
    )
