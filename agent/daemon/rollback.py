"""What the steps of a recovery do to the world: the :class:`agent.recovery.Actions` of a running daemon.

The heavy step, putting documents back, runs in a worker process; the others are one RPC or one request each. All of
them may be repeated after a crash.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from agent.clock import Clock, rfc3339
from agent.faults import (
    Permanent,
    PermanentReason,
    Refused,
    RefusedReason,
    Transient,
    TransientReason,
)
from agent.firestore import Firestore, read_maintenance, set_maintenance
from agent.migration import Runs, in_reach
from agent.recovery import RestorePoint, check_health_url, clear_caches
from agent.runbook import Policy
from agent.scheduling import Supervisor
from agent.settings import RecoverySettings
from agent.signals import ProbeRunner
from agent.telemetry import ProgressSink

_log = logging.getLogger(__name__)
_STOP_GRACE_S = 20.0
_POLL_S = 0.1
MIGRATING = ("migrate", "resume")


class RollbackActions:
    """Undo through a worker, restore through a worker, everything else here.

    Args:
        newest_backup: id and read_time of the newest verified backup from before a moment, or ``None``.
        restore_approved: whether the full restore that a run would need has been approved by the page's role.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        settings: RecoverySettings,
        firestore: Firestore,
        runs: Runs,
        supervisor: Supervisor,
        probes: ProbeRunner,
        newest_backup: Callable[[datetime], tuple[str, datetime] | None],
        restore_approved: Callable[[str], bool],
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._settings = settings
        self._firestore = firestore
        self._runs = runs
        self._supervisor = supervisor
        self._probes = probes
        self._newest_backup = newest_backup
        self._restore_approved = restore_approved
        self._clock = clock

    def stop_change(self, run_id: str) -> str:
        """Ask the run's process to stop at its next batch, and kill it if it doesn't: its journal is enough."""
        record = self._runs.get(run_id)
        if not self._runs.alive(record):
            return "it was not running any more"
        ours = [running for running in self._supervisor.running() if running.operation in MIGRATING]
        for running in ours:
            running.cancel()
        if not ours:
            self._signal(record.pid, record.host, signal.SIGTERM)
        if self._gone(run_id, _STOP_GRACE_S):
            return "it stopped at its next batch"
        _log.warning("the migration does not stop; killing it", extra={"run": run_id, "pid": record.pid})
        for running in ours:
            running.kill()
        if not ours:
            self._signal(record.pid, record.host, signal.SIGKILL)
        if self._gone(run_id, _STOP_GRACE_S):
            return "it had to be killed; its journal says what it wrote"
        raise Transient(TransientReason.BUSY, f"run {run_id} still writes", hint=f"stop process {record.pid} by hand")

    def set_maintenance(self, *, enabled: bool, reason: str) -> str:
        """Write ``_config/maintenance`` if it doesn't say so already."""
        if read_maintenance(self._firestore).enabled is not enabled:
            message = self._policy().maintenance.message if enabled else ""
            set_maintenance(
                self._firestore,
                enabled=enabled,
                now=self._clock.now(),
                message=message or reason,
                by=f"runbookd: {reason}" if reason else "runbookd",
            )
        return "traffic is stopped" if enabled else "traffic flows again"

    def choose_restore_point(self, run_id: str) -> RestorePoint:
        """The run's journal, else old versions within the hour, else a backup of before the run if that is approved."""
        record = self._runs.get(run_id)
        backup = self._newest_backup(record.started)
        fallback = f"; last good backup: {backup[0]}" if backup else ""
        if self._runs.journal(run_id).is_dir():
            return RestorePoint(kind="undo", id=run_id, detail=f"the run's undo journal{fallback}")
        if in_reach(record, self._firestore):
            detail = f"the database's own versions of before {rfc3339(record.pre_read_time)}{fallback}"
            return RestorePoint(kind="undo", id=run_id, detail=detail)
        if backup is None:
            raise Permanent(
                PermanentReason.NOT_FOUND,
                f"run {run_id} has no undo journal and no verified backup is older than it",
                hint="look for a backup elsewhere; maintenance mode stays on",
            )
        if not self._restore_approved(run_id):
            raise Refused(
                RefusedReason.NOT_CONFIRMED,
                f"run {run_id} has no undo journal, and a full restore of {backup[0]} is not approved",
                hint="`runbookd automation approve`, then `runbookd rollback`",
            )
        return RestorePoint(kind="undo", id=run_id, detail=f"{backup[0]}, as a diff over the run's collections")

    def put_back(self, point: RestorePoint, progress: ProgressSink) -> dict[str, int]:
        """Undo or restore in a worker process."""
        if point.kind == "undo":
            # Approved or not, the journal comes first; the approval is for what is left if that turns out to be lost.
            arguments = {"run_id": point.id, "from_backup": self._restore_approved(point.id)}
            report = self._supervisor.run("undo", arguments, progress=progress)
            return _undo_counts(report)
        report = self._supervisor.run("restore", {"backup": point.id, "delete_extra": True}, progress=progress)
        if report["failed"]:
            raise Permanent(
                PermanentReason.TOO_MANY_FAILURES,
                f"{report['failed']:,} documents of {point.id} could not be written back",
                hint="the restore can be repeated: `runbookd rollback`",
            )
        return {"documents": int(report["applied"]), "kept": int(report["conflicts"])}

    def clear_caches(self) -> str:
        return clear_caches(self._settings.redis_url, self._settings.redis_prefix)

    def check_health(self) -> str:
        """The database answers our probes, and the application says it is well."""
        problems = self._probes.check()
        if problems:
            raise Transient(
                TransientReason.UNAVAILABLE,
                "; ".join(f"probe {name}: {problem}" for name, problem in sorted(problems.items())),
            )
        url = self._settings.health_url or self._policy().health_url
        if not self._settings.check_health_url or not url:
            return "the database answers; no health address is asked"
        report = check_health_url(url)
        return f"the database answers; {report.url} says {report.status}"

    # --- inside -----------------------------------------------------------------------------------------------

    def _gone(self, run_id: str, patience: float) -> bool:
        deadline = self._clock.monotonic() + patience
        while self._runs.alive(self._runs.get(run_id)):
            if self._clock.monotonic() >= deadline:
                return False
            self._clock.sleep(_POLL_S)
        return True

    def _signal(self, pid: int, host: str, number: signal.Signals) -> None:
        if host != socket.gethostname():
            raise Permanent(
                PermanentReason.UNSUPPORTED,
                f"the migration runs on {host}, as process {pid}",
                hint="stop it there; runbookd stops processes of its own machine only",
            )
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise Permanent(
                PermanentReason.UNSUPPORTED,
                f"the migration runs as process {pid} of another user",
                hint="stop it by hand, then run `runbookd rollback`",
            ) from error


def _undo_counts(report: Mapping[str, Any]) -> dict[str, int]:
    return {key: int(value) for key, value in report.items() if isinstance(value, int) and not isinstance(value, bool)}
