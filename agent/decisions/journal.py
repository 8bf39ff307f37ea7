"""The decision journal: every decision with its evidence, on disk before its effect.

Bound to (run, condition): a decision that says what one before it said for the same run, condition and onset is the
same decision and is not written, told or carried out again. A run has at most one rollback; the table's unique index
says so, whatever the code above it does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from sqlite3 import Row

from agent.clock import rfc3339
from agent.decisions.decision import Decision, Guard, Means, Pace, Verdict
from agent.decisions.restraint import PastRollback, unknown_decision
from agent.runbook import Severity
from agent.state import StateFile


class Outcome(StrEnum):
    """What became of a rollback."""

    NONE = ""
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """A decision as it was written down."""

    number: int
    decision: Decision
    outcome: Outcome = Outcome.NONE
    concluded_at: datetime | None = None


_SCHEMA = (
    """
    CREATE TABLE decision (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        run_id TEXT NOT NULL,
        condition TEXT NOT NULL,
        verdict TEXT NOT NULL,
        decided_at TEXT NOT NULL,
        body TEXT NOT NULL,
        evidence TEXT NOT NULL,
        outcome TEXT NOT NULL DEFAULT '',
        concluded_at TEXT
    );
    CREATE INDEX decision_by_id ON decision (id, number);
    CREATE UNIQUE INDEX decision_one_rollback_a_run ON decision (run_id) WHERE verdict = 'rollback';
    """,
)


class DecisionJournal:
    """Decisions on disk."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        state.ensure("decisions.journal", _SCHEMA)

    def record(self, decision: Decision) -> bool:
        """Write ``decision`` down unless it has been said before.

        Returns:
            True if it is new and may now have its effect.
        """
        if decision.verdict is Verdict.NOTHING:
            return False
        with self._state.transaction() as tx:
            said = tx.execute("SELECT verdict, body FROM decision WHERE id = ?", (decision.id,)).fetchall()
            if any(_same(row, decision) for row in said):
                return False
            if decision.verdict is Verdict.ROLLBACK and self._rolled_back(decision.run_id):
                return False
            tx.execute(
                "INSERT INTO decision (id, run_id, condition, verdict, decided_at, body, evidence) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    decision.id,
                    decision.run_id,
                    decision.condition,
                    str(decision.verdict),
                    rfc3339(decision.decided_at),
                    _body(decision),
                    json.dumps(decision.evidence),
                ),
            )
        return True

    def conclude(self, decision_id: str, outcome: Outcome, now: datetime) -> None:
        """Record what became of a rollback; the first word stands."""
        with self._state.transaction() as tx:
            tx.execute(
                "UPDATE decision SET outcome = ?, concluded_at = ? "
                "WHERE id = ? AND verdict = 'rollback' AND concluded_at IS NULL",
                (str(outcome), rfc3339(now), decision_id),
            )

    def find(self, decision_id: str) -> JournalEntry:
        """The newest entry of ``decision_id``.

        Raises:
            Permanent: there is none.
        """
        rows = self._state.query("SELECT * FROM decision WHERE id = ? ORDER BY number DESC LIMIT 1", (decision_id,))
        if not rows:
            raise unknown_decision(decision_id)
        return _entry(rows[0])

    def entries(self, *, run_id: str | None = None, limit: int = 100) -> tuple[JournalEntry, ...]:
        """The newest entries, oldest first; of one run if ``run_id`` is given."""
        where, parameters = ("", []) if run_id is None else ("WHERE run_id = ?", [run_id])
        rows = self._state.query(f"SELECT * FROM decision {where} ORDER BY number DESC LIMIT ?", (*parameters, limit))
        return tuple(_entry(row) for row in reversed(rows))

    def outstanding(self) -> tuple[Decision, ...]:
        """Rollbacks that were decided and not concluded: after a crash, those to start or to go on with."""
        rows = self._state.query(
            "SELECT * FROM decision WHERE verdict = 'rollback' AND concluded_at IS NULL ORDER BY number"
        )
        return tuple(_entry(row).decision for row in rows)

    def waiting(self) -> tuple[Decision, ...]:
        """The newest wait for an approval of every run that has not been rolled back since."""
        rows = self._state.query(
            "SELECT * FROM decision WHERE number IN (SELECT max(number) FROM decision "
            "WHERE verdict = 'needs_approval' GROUP BY id) AND run_id NOT IN "
            "(SELECT run_id FROM decision WHERE verdict = 'rollback') ORDER BY number"
        )
        return tuple(_entry(row).decision for row in rows)

    def rollbacks(self) -> tuple[PastRollback, ...]:
        """Every rollback ever decided, oldest first."""
        rows = self._state.query("SELECT * FROM decision WHERE verdict = 'rollback' ORDER BY number")
        return tuple(
            PastRollback(
                decision_id=row["id"],
                run_id=row["run_id"],
                decided_at=datetime.fromisoformat(row["decided_at"]),
                concluded_at=_time(row["concluded_at"]),
            )
            for row in rows
        )

    def _rolled_back(self, run_id: str) -> bool:
        return bool(self._state.query("SELECT 1 FROM decision WHERE run_id = ? AND verdict = 'rollback'", (run_id,)))


def _body(decision: Decision) -> str:
    return json.dumps(
        {
            "title": decision.title,
            "severity": str(decision.severity),
            "incident": decision.incident,
            "onset": rfc3339(decision.onset) if decision.onset else None,
            "pace": decision.pace,
            "means": decision.means,
            "backup_id": decision.backup_id,
            "budget_seconds": decision.budget.total_seconds() if decision.budget is not None else None,
            "guards": list(decision.guards),
            "reasons": list(decision.reasons),
            "trace_id": decision.trace_id,
        }
    )


def _same(row: Row, decision: Decision) -> bool:
    """Compared with everything said so far, not with the last word: two verdicts may take turns for minutes."""
    body = json.loads(row["body"])
    onset = rfc3339(decision.onset) if decision.onset else None
    return (row["verdict"], tuple(body["guards"]), body["onset"]) == (decision.verdict, decision.guards, onset)


def _entry(row: Row) -> JournalEntry:
    body = json.loads(row["body"])
    decision = Decision(
        id=row["id"],
        verdict=Verdict(row["verdict"]),
        condition=row["condition"],
        title=body["title"],
        severity=Severity(body["severity"]),
        incident=body["incident"],
        run_id=row["run_id"],
        decided_at=datetime.fromisoformat(row["decided_at"]),
        onset=_time(body["onset"]),
        pace=Pace(body["pace"]) if body["pace"] else None,
        means=Means(body["means"]) if body["means"] else None,
        backup_id=body["backup_id"],
        budget=timedelta(seconds=body["budget_seconds"]) if body["budget_seconds"] is not None else None,
        guards=tuple(Guard(name) for name in body["guards"]),
        reasons=tuple(body["reasons"]),
        trace_id=body["trace_id"],
        evidence=json.loads(row["evidence"]),
    )
    return JournalEntry(
        number=row["number"],
        decision=decision,
        outcome=Outcome(row["outcome"]),
        concluded_at=_time(row["concluded_at"]),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
