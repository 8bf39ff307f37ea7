"""Recoveries on disk: every change of a step is written before and after it happens."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from agent.recovery.saga import Recovery, RecoveryState, RestorePoint, StepRecord, StepState
from agent.state import StateFile

_SCHEMA = (
    """
    CREATE TABLE recovery (
        id TEXT PRIMARY KEY,
        decision_id TEXT NOT NULL UNIQUE,
        run_id TEXT NOT NULL,
        state TEXT NOT NULL,
        started_at TEXT NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX recovery_state ON recovery (state);
    """,
)


class RecoveryJournal:
    """The recoveries of one state file."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        state.ensure("recovery", _SCHEMA)

    def save(self, recovery: Recovery) -> None:
        with self._state.transaction() as tx:
            tx.execute(
                "INSERT INTO recovery (id, decision_id, run_id, state, started_at, body) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body",
                (
                    recovery.id,
                    recovery.decision_id,
                    recovery.run_id,
                    str(recovery.state),
                    recovery.started_at.isoformat(),
                    json.dumps(asdict(recovery), default=_encode),
                ),
            )

    def of_decision(self, decision_id: str) -> Recovery | None:
        return self._one("decision_id = ?", decision_id)

    def load(self, recovery_id: str) -> Recovery | None:
        return self._one("id = ?", recovery_id)

    def unfinished(self) -> Recovery | None:
        """The recovery that was under way when the process ended; there is never more than one."""
        return self._one("state = ?", str(RecoveryState.RUNNING))

    def latest(self) -> Recovery | None:
        rows = self._state.query("SELECT body FROM recovery ORDER BY started_at DESC, rowid DESC LIMIT 1")
        return _decode(rows[0]["body"]) if rows else None

    def all(self) -> tuple[Recovery, ...]:
        """Newest first."""
        rows = self._state.query("SELECT body FROM recovery ORDER BY started_at DESC, rowid DESC")
        return tuple(_decode(row["body"]) for row in rows)

    def _one(self, where: str, value: str) -> Recovery | None:
        rows = self._state.query(f"SELECT body FROM recovery WHERE {where}", (value,))
        return _decode(rows[0]["body"]) if rows else None


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} does not belong into a recovery")


def _decode(body: str) -> Recovery:
    data: dict[str, Any] = json.loads(body)
    data["steps"] = tuple(
        StepRecord(
            **{
                **step,
                "state": StepState(step["state"]),
                "started_at": _moment(step["started_at"]),
                "finished_at": _moment(step["finished_at"]),
            }
        )
        for step in data["steps"]
    )
    data["restore_point"] = RestorePoint(**data["restore_point"]) if data["restore_point"] else None
    data["state"] = RecoveryState(data["state"])
    data["started_at"] = datetime.fromisoformat(data["started_at"])
    data["finished_at"] = _moment(data["finished_at"])
    return Recovery(**data)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
