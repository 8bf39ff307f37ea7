"""Scheduled backups: a worker each, its end in the history, the page's figures from the history."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from agent.backup import Attempt, BackupHistory, Backups, BackupType, Outcome
from agent.clock import Clock
from agent.faults import RunbookdError
from agent.runbook import Policy
from agent.scheduling import RESTORE_DRILL, Supervisor
from agent.telemetry import ProgressSink, Telemetry, ignore_progress
from agent.telemetry.catalogue import BACKUP_CONSECUTIVE_FAILURES

_log = logging.getLogger(__name__)


class BackupJobs:
    """What happens when a backup is due, and when one was missed."""

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        supervisor: Supervisor,
        history: BackupHistory,
        backups: Backups,
        clock: Clock,
        telemetry: Telemetry,
        progress: ProgressSink = ignore_progress,
    ) -> None:
        self._policy = policy
        self._supervisor = supervisor
        self._history = history
        self._backups = backups
        self._clock = clock
        self._progress = progress
        telemetry.observe(BACKUP_CONSECUTIVE_FAILURES, self._observe)

    def caught_up(self) -> None:
        """At the start: write down what was due while nobody was there."""
        schedule = {BackupType(plan.type): plan.every.period for plan in self._policy().backups}
        for attempt in self._history.record_missed(schedule, self._clock.now()):
            _log.warning("a scheduled backup was missed", extra={"type": attempt.type, "due": str(attempt.due_at)})

    def run(self, kind: str) -> Mapping[str, Any] | None:
        """Take a due backup in a worker, then apply retention; returns its report, ``None`` if it failed."""
        due = self._clock.now()
        try:
            report = self._supervisor.run("backup", {"type": kind}, progress=self._progress)
        except RunbookdError as error:
            _log.error("a scheduled backup failed", extra={"type": kind, "why": str(error)})
            self._note(kind, due, Outcome.FAILED, detail=str(error))
            return None
        self._note(kind, due, Outcome.OK, backup=str(report["id"]))
        self._clean()
        self.observe()
        return report

    def run_due(self, kind: str) -> None:
        """The scheduler's handler."""
        if kind == RESTORE_DRILL:
            self.drill()
        else:
            self.run(kind)

    def drill(self) -> Mapping[str, Any] | None:
        """Restore the newest backup whose chain is verified into a scratch database; ``None`` if that failed.

        A backup is worth what its last restore was worth: this marks the chain as proven, which retention relies on.
        """
        try:
            manifest = self._backups.newest_verified()
            if manifest is None:
                _log.warning("there is no verified backup to try a restore with")
                return None
            report = self._supervisor.run("verify", {"backup": manifest.id, "deep": True}, progress=self._progress)
        except RunbookdError as error:
            _log.error("the restore drill failed", extra={"why": str(error)})
            return None
        if not report["ok"]:
            _log.error("the restore drill failed", extra={"backup": manifest.id, "why": str(report["problems"])})
            return None
        self.observe()
        return report

    def missed(self, kind: str) -> None:
        """The scheduler dropped a run: too late, or the one before is still at work."""
        if kind == RESTORE_DRILL:
            _log.warning("a restore drill was missed")
            return
        self._note(kind, self._clock.now(), Outcome.MISSED, detail="dropped by the scheduler")

    def observe(self) -> None:
        """Refresh the gauges about what is stored."""
        try:
            self._backups.observe_metrics()
        except RunbookdError as error:
            _log.warning("the backup storage can't be looked at", extra={"why": str(error)})

    def attempts(self, kind: str) -> list[Attempt]:
        """The newest attempts of a type, newest first."""
        return self._history.attempts(BackupType(kind), 10)

    def failures(self, kind: str) -> int:
        """Scheduled backups of a type that failed or were missed in a row."""
        return self._history.consecutive_failures(BackupType(kind))

    def _clean(self) -> None:
        try:
            self._supervisor.run("clean")
        except RunbookdError as error:
            _log.warning("retention could not be applied", extra={"why": str(error)})

    def _note(self, kind: str, due: datetime, outcome: Outcome, *, backup: str = "", detail: str = "") -> None:
        self._history.record(Attempt(type=BackupType(kind), due_at=due, outcome=outcome, backup=backup, detail=detail))

    def _observe(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        for plan in self._policy().backups:
            yield float(self.failures(str(plan.type))), {"type": str(plan.type)}
