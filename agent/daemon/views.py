"""The daemon's state as JSON-able bodies: the page's four endpoints and the status page.

Everything here is read from memory, the state file or local disk; nothing asks the database, because these answers
matter most when it doesn't. What costs more than a moment (listing backups) is remembered for a few seconds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from agent.alerting import AlertState
from agent.backup import BackupSummary
from agent.clock import rfc3339
from agent.daemon.daemon import Daemon
from agent.daemon.judged import LATENCY
from agent.daemon.probes import DATABASE
from agent.faults import RunbookdError
from agent.migration import RunRecord
from agent.promql import Vector, compile_expression
from agent.recovery import Recovery

Body = Mapping[str, Any]
_FRESH_S = 5.0
_STALE_SIGNAL_S = 60.0

_QUERY_P95 = compile_expression(
    "histogram_quantile(0.95, sum by (le, db_query_summary) (rate(db_client_operation_duration_seconds_bucket"
    '{db_query_summary!=""}[1m])))'
)


class Views:
    """Bodies of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._parts = daemon.parts
        self._backups = _Remembered(self._look_at_backups, self._parts.clock.monotonic)

    # --- the agent itself ---------------------------------------------------------------------------------------

    def problems(self) -> Mapping[str, str]:
        """What is wrong with the agent, by component."""
        found: dict[str, str] = {}
        if not self._daemon.alive:
            found["rules"] = "the rule loop has stalled"
        for source, age in self._parts.freshness.overdue(_STALE_SIGNAL_S).items():
            found[f"signal {source}"] = f"silent for {age:.0f} s"
        for name, problem in self._parts.probes.problems().items():
            found[f"probe {name}"] = problem
        return found

    # --- the page's four endpoints --------------------------------------------------------------------------------

    def database_health(self) -> Body:
        """GET /api/database/health."""
        problems = self._parts.probes.problems()
        firing = sum(alert.calls and alert.state is not AlertState.PENDING for alert in self._parts.rules.active())
        troubled = "degraded" if problems or firing else "ok"
        status = "unreachable" if DATABASE in problems else troubled
        flag = self._parts.maintenance.flag()
        return {
            "status": status,
            "probes": self._parts.probes.results(),
            "latency_seconds": self._parts.judged.values((LATENCY,)).get(LATENCY),
            "maintenance": {
                "enabled": flag.enabled if flag else None,
                "message": flag.message if flag else "",
                "since": _time(flag.since) if flag else None,
                "by": flag.by if flag else "",
            },
            "alerts_firing": firing,
        }

    def migration_status(self) -> Body:
        """GET /api/database/migration-status."""
        record = self._parts.runs.latest()
        recovery = self._parts.recovery_journal.latest()
        baseline = self._parts.watch.baseline
        watched = self._parts.watch.record
        return {
            "run": None
            if record is None
            else {**_run(record), "under_watch": watched is not None and watched.id == record.id},
            "recovery": _recovery(recovery) if recovery is not None else None,
            "baseline": dict(baseline.p95) if baseline is not None else {},
        }

    def backup_status(self) -> Body:
        """GET /api/database/backup-status."""
        backups, storages, interrupted, problem = self._backups()
        due = self._parts.scheduler.due_times()
        schedule = []
        for plan in self._parts.policy().backups:
            last = next((item for item in backups if item.type == str(plan.type)), None)
            attempts = self._parts.backup_jobs.attempts(str(plan.type))
            schedule.append(
                {
                    "type": str(plan.type),
                    "every": str(plan.every),
                    "next_due": _time(due.get(f"backup-{plan.type}")),
                    "consecutive_failures": self._parts.backup_jobs.failures(str(plan.type)),
                    "last_attempt": str(attempts[0].outcome) if attempts else None,
                    "last": _backup(last) if last is not None else None,
                }
            )
        return {
            "schedule": schedule,
            "storages": storages,
            "backups": len(backups),
            "half_restored": interrupted,
            "problem": problem,
        }

    def metrics(self) -> Body:
        """GET /api/database/metrics: each threshold and query of the page with its value now, in base units."""
        policy = self._parts.policy()
        judged = self._parts.judged.values()
        thresholds = []
        for threshold in policy.thresholds:
            value = judged.get(threshold.metric)
            thresholds.append(
                {
                    "metric": threshold.metric,
                    "title": threshold.title,
                    "value": value,
                    "warning": threshold.warning.value,
                    "critical": threshold.critical.value,
                    "unit": str(threshold.warning.unit),
                    "state": self._state(threshold.metric, value),
                }
            )
        p95 = self._by_query()
        queries = [
            {
                "query": target.query,
                "title": target.title,
                "p95_seconds": p95.get(target.query),
                "target_seconds": target.target,
                "state": "unknown"
                if target.query not in p95
                else ("ok" if p95[target.query] < target.target else "slow"),
            }
            for target in policy.query_targets
        ]
        return {"thresholds": thresholds, "queries": queries, "series": self._parts.store.statistics().series}

    # --- for the status page ----------------------------------------------------------------------------------

    def automation(self) -> Body:
        """Holds, approvals that are waited for, what was decided lately."""
        status = self._parts.decisions.status()
        hold = status.hold
        return {
            "hold": None
            if hold is None
            else {"owner": hold.owner, "reason": hold.reason, "expires_at": rfc3339(hold.expires_at)},
            "waiting": [{"id": item.id, "condition": item.condition, "run_id": item.run_id} for item in status.waiting],
            "rollbacks_today": status.rollbacks_today,
            "daily_limit": status.limits.daily_limit,
            "approver": status.approver,
            "recent": [
                {
                    "at": rfc3339(entry.decision.decided_at),
                    "id": entry.decision.id,
                    "verdict": str(entry.decision.verdict),
                    "reasons": list(entry.decision.reasons),
                }
                for entry in reversed(status.recent[-10:])
            ],
        }

    def recent(self) -> Sequence[Body]:
        """What was sent to people lately, newest first."""
        return [
            {
                "at": rfc3339(delivery.created_at),
                "title": delivery.title,
                "detail": f"{delivery.kind} → {delivery.target}: {delivery.state}",
                "mark": "good" if str(delivery.kind) == "resolve" else str(delivery.severity),
            }
            for delivery in reversed(self._parts.notifier.deliveries(limit=40))
        ]

    # --- inside -----------------------------------------------------------------------------------------------

    def _by_query(self) -> dict[str, float]:
        value = self._parts.engine.instant(_QUERY_P95, self._parts.clock.now().timestamp())
        if not isinstance(value, Vector):
            return {}
        return {
            dict(element.labels).get("db_query_summary", ""): element.value
            for element in value.elements
            if math.isfinite(element.value)
        }

    def _state(self, metric: str, value: float | None) -> str:
        """By the alerts, not by comparing here: one place judges."""
        firing = {
            alert.labels.get("severity", "")
            for alert in self._parts.rules.active()
            if alert.labels.get("metric") == metric and alert.state is not AlertState.PENDING
        }
        if "critical" in firing:
            return "critical"
        if "warning" in firing:
            return "warning"
        return "unknown" if value is None else "ok"

    def _look_at_backups(self) -> _Looked:
        try:
            backups = self._parts.backups.list()
            interrupted: list[Body] = [
                {"database": one.target, "backup": one.backup, "since": _time(one.since)}
                for one in self._parts.backups.interrupted_restores()
            ]
        except RunbookdError as error:
            return (), [], [], str(error)
        storages: list[Body] = []
        for storage in self._parts.storages:
            try:
                usage = storage.usage()
            except RunbookdError as error:
                storages.append({"name": storage.name, "problem": str(error)})
                continue
            storages.append(
                {
                    "name": storage.name,
                    "used_bytes": usage.used_bytes,
                    "capacity_bytes": usage.capacity_bytes,
                    "ratio": usage.ratio,
                }
            )
        return backups, storages, interrupted, ""


_Looked = tuple[tuple[BackupSummary, ...], list[Body], list[Body], str]
"""Backups, storages, half-restored databases, and why there is nothing to see."""


class _Remembered:
    """The last answer, for a few seconds."""

    def __init__(
        self,
        look: Callable[[], _Looked],
        now: Callable[[], float],
    ) -> None:
        self._look = look
        self._now = now
        self._lock = threading.Lock()
        self._answer: _Looked | None = None
        self._at = 0.0

    def __call__(self) -> _Looked:
        with self._lock:
            if self._answer is None or self._now() - self._at > _FRESH_S:
                self._answer = self._look()
                self._at = self._now()
            return self._answer


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None


def _run(record: RunRecord) -> Body:
    return {
        "id": record.id,
        "name": record.name,
        "state": str(record.state),
        "started": _time(record.started),
        "finished": _time(record.finished),
        "documents": record.total,
        "written": record.counts.written,
        "undo_started": _time(record.undo_started),
        "undo_finished": _time(record.undo_finished),
        "undone": record.undone,
        "kept": record.kept,
        "error": record.error,
        "pace": record.pace,
        "disarmed": record.disarmed,
        "collections": [
            {
                "collection": part.collection,
                "documents": part.documents,
                "scanned": part.counts.scanned,
                "written": part.counts.written,
                "started": _time(part.started),
                "finished": _time(part.finished),
                "checked": part.checked,
                "mismatched": part.mismatched,
            }
            for part in record.collections
        ],
    }


def _recovery(recovery: Recovery) -> Body:
    return {
        "id": recovery.id,
        "state": str(recovery.state),
        "run_id": recovery.run_id,
        "condition": recovery.condition,
        "budget_seconds": recovery.budget,
        "started_at": _time(recovery.started_at),
        "finished_at": _time(recovery.finished_at),
        "problem": recovery.problem,
        "restore_point": recovery.restore_point.detail if recovery.restore_point else "",
        "steps": [
            {
                "name": step.name,
                "title": step.title,
                "state": str(step.state),
                "started_at": _time(step.started_at),
                "seconds": step.seconds,
                "budget_seconds": step.budget,
                "over_budget": step.over_budget,
                "detail": step.detail,
            }
            for step in recovery.steps
        ],
    }


def _backup(item: BackupSummary) -> Body:
    return {
        "id": item.id,
        "at": _time(item.read_time),
        "verified": item.verified,
        "documents": item.documents,
        "stored_bytes": item.stored_bytes,
    }
