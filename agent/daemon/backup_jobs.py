"""Scheduled backups: a worker each, its end in the history, the page's figures from the history."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

from agent.backup import Attempt, BackupHistory, Backups, BackupType, Outcome
from agent.clock import Clock
from agent.faults import RunbookdError
from agent.runbook import Policy
from agent.scheduling import RESTORE_DRILL
from agent.telemetry import ProgressSink, Telemetry, ignore_progress
from agent.telemetry.catalogue import BACKUP_CONSECUTIVE_FAILURES

_log = logging.getLogger(__name__)
_LASTING = (BackupType.FULL, BackupType.INCREMENTAL)


class Workers(Protocol):
    """Who does the heavy part; the daemon's :class:`agent.scheduling.Supervisor`, in a process of its own."""

    def run(
        self, operation: str, arguments: Mapping[str, Any] | None = None, *, progress: ProgressSink = ignore_progress
    ) -> Mapping[str, Any]:
        """Do it and return its report; raises its error."""


class BackupJobs:
    """What happens when a backup is due, and when one was missed."""

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        workers: Workers,
        history: BackupHistory,
        backups: Backups,
        clock: Clock,
        telemetry: Telemetry,
        progress: ProgressSink = ignore_progress,
    ) -> None:
        self._policy = policy
        self._workers = workers
        self._history = history
        self._backups = backups
        self._clock = clock
        self._progress = progress
        telemetry.observe(BACKUP_CONSECUTIVE_FAILURES, self._observe)

    def caught_up(self) -> None:
        """At the start: write down what an earlier process began and never ended, and what was due meanwhile."""
        for attempt in self._history.record_abandoned():
            _log.error("a scheduled backup was cut off", extra={"type": attempt.type, "due": str(attempt.due_at)})
        schedule = {BackupType(plan.type): plan.every.period for plan in self._policy().backups}
        for attempt in self._history.record_missed(schedule, self._clock.now()):
            _log.warning("a scheduled backup was missed", extra={"type": attempt.type, "due": str(attempt.due_at)})

    def run(self, kind: str, due: datetime) -> Mapping[str, Any] | None:
        """Take a due backup in a worker, then apply retention; returns its report, ``None`` if it failed."""
        self._note(kind, due, Outcome.RUNNING)  # if this process ends first, the next one finds it
        try:
            report = self._workers.run("backup", {"type": kind}, progress=self._progress)
        except RunbookdError as error:
            _log.error("a scheduled backup failed", extra={"type": kind, "why": str(error)})
            self._note(kind, due, Outcome.FAILED, detail=str(error))
            return None
        self._note(kind, due, Outcome.OK, backup=str(report["id"]))
        self._tidy()
        self.observe()
        return report

    def run_due(self, kind: str, due: datetime) -> None:
        """The scheduler's handler."""
        if kind == RESTORE_DRILL:
            self.drill()
        else:
            self.run(kind, due)

    def drill(self) -> Mapping[str, Any] | None:
        """Restore the newest verified chain into a scratch database and compare; ``None`` if that failed.

        A backup is worth what its last restore was worth: this marks the chain as proven, which retention relies on.
        A chain that begins with a full backup goes before a snapshot: snapshots are always newer, and are gone in a
        day, so a drill of them alone would never prove what is left when this host is lost.
        """
        try:
            manifest = self._backups.newest_verified(kinds=_LASTING) or self._backups.newest_verified()
            if manifest is None:
                _log.warning("there is no verified backup to try a restore with")
                return None
            report = self._workers.run("verify", {"backup": manifest.id, "deep": True}, progress=self._progress)
        except RunbookdError as error:
            _log.error("the restore drill failed", extra={"why": str(error)})
            return None
        if not report["ok"]:
            _log.error("the restore drill failed", extra={"backup": manifest.id, "why": str(report["problems"])})
            return None
        self.observe()
        return report

    def missed(self, kind: str, due: datetime) -> None:
        """The scheduler dropped a run: too late, or the one before is still at work."""
        _log.warning("a scheduled job was missed", extra={"type": kind, "due": str(due)})
        if kind != RESTORE_DRILL:
            self._note(kind, due, Outcome.MISSED, detail="too late, or the one before was still at work")

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

    def _tidy(self) -> None:
        """Copies that are missing where the page wants them, then retention, which may rely on them."""
        try:
            report = self._workers.run("tidy", progress=self._progress)
        except RunbookdError as error:
            _log.warning("copies and retention could not be seen to", extra={"why": str(error)})
            return
        if report["upload"]["problems"]:
            _log.warning("some backups lack a copy", extra={"why": "; ".join(report["upload"]["problems"])})

    def _note(self, kind: str, due: datetime, outcome: Outcome, *, backup: str = "", detail: str = "") -> None:
        self._history.record(Attempt(type=BackupType(kind), due_at=due, outcome=outcome, backup=backup, detail=detail))

    def _observe(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        for plan in self._policy().backups:
            yield float(self.failures(str(plan.type))), {"type": str(plan.type)}
