"""Incidents on disk, so that a restart knows what people have been told and what is still owed to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from sqlite3 import Row

from agent.clock import rfc3339
from agent.notifications.channel import Urgency
from agent.notifications.incidents import Incident
from agent.runbook import ChannelKind
from agent.state import StateFile, Transaction

_SCHEMA = (
    """
    CREATE TABLE incident (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        condition TEXT NOT NULL,
        opened_at TEXT NOT NULL,
        resolved_at TEXT,
        body TEXT NOT NULL
    );
    CREATE UNIQUE INDEX incident_one_open ON incident (condition) WHERE resolved_at IS NULL;
    """,
)


class IncidentRegister:
    """The table of incidents; written within the notifier's transactions."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        state.ensure("notifications.incidents", _SCHEMA)

    def open_incidents(self) -> Mapping[str, Incident]:
        """Incidents without an end, by condition."""
        rows = self._state.query("SELECT * FROM incident WHERE resolved_at IS NULL ORDER BY number")
        return {row["condition"]: _incident(row) for row in rows}

    def number(self, tx: Transaction, condition: str, opened_at: datetime) -> int:
        """Begin an incident; its number."""
        cursor = tx.execute(
            "INSERT INTO incident (condition, opened_at, body) VALUES (?, ?, '{}')", (condition, rfc3339(opened_at))
        )
        return cursor.lastrowid or 0

    def save(self, tx: Transaction, incident: Incident, resolved_at: datetime | None = None) -> None:
        """Write ``incident`` as it is now; with ``resolved_at`` it is over."""
        tx.execute(
            "UPDATE incident SET body = ?, resolved_at = ? WHERE number = ?",
            (_body(incident), rfc3339(resolved_at) if resolved_at else None, incident.number),
        )


def _body(incident: Incident) -> str:
    return json.dumps(
        {
            "dedup_key": incident.dedup_key,
            "severity": incident.severity,
            "title": incident.title,
            "rules": sorted(incident.rules),
            "blind": incident.blind,
            "last_sent_at": rfc3339(incident.last_sent_at),
            "sequence": incident.sequence,
            "channels": incident.channels,
            "pins": incident.pins,
            "cure": incident.cure,
            "trace_id": incident.trace_id,
        },
        ensure_ascii=False,
    )


def _incident(row: Row) -> Incident:
    body = json.loads(row["body"])
    return Incident(
        number=row["number"],
        condition=row["condition"],
        dedup_key=body["dedup_key"],
        opened_at=datetime.fromisoformat(row["opened_at"]),
        severity=Urgency(body["severity"]),
        title=body["title"],
        rules=frozenset(body["rules"]),
        blind=body["blind"],
        last_sent_at=datetime.fromisoformat(body["last_sent_at"]),
        sequence=body["sequence"],
        channels=tuple(ChannelKind(name) for name in body["channels"]),
        pins=tuple(body["pins"]),
        cure=body["cure"],
        trace_id=body["trace_id"],
    )
