"""The world outside a rehearsal: the migration, its way back, the probe, and what a recovery does to them.

It outlives the process that is rehearsed, as the world does: a killed daemon finds it as it left it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.alerting import Alert
from agent.clock import Clock
from agent.daemon.evidence import operations_seen
from agent.decisions import ChangeState, ChangeUnderWatch, Evidence, Probe, RestoreCertificate
from agent.faults import Permanent, PermanentReason
from agent.promql import Engine
from agent.recovery import RestorePoint
from agent.runbook import Operation
from agent.telemetry import ProgressSink

_STEP_S = 1.0


@dataclass(kw_only=True)
class World:
    """What a script says of the world; recoveries change it.

    Args:
        started: when the migration under watch begins; ``None``: there is none.
        finished: when it ends; ``None``: it runs on.
        journal: its undo journal is there.
        backup: id and moment of the newest verified backup from before it.
        put_back: how long undoing or restoring takes.
        documents: how many that puts back.
        failing: operations of the emergency sequence that fail for good.
        maintenance: traffic is stopped.
    """

    started: datetime | None = None
    finished: datetime | None = None
    run_id: str = "run-1"
    revision: str = "migration"
    journal: bool = True
    backup: tuple[str, datetime] | None = None
    baseline: bool = True
    probe: Probe = Probe.UNKNOWN
    put_back: timedelta = timedelta(seconds=30)
    documents: int = 1_000
    failing: frozenset[str] = frozenset()
    maintenance: bool = False
    undone: datetime | None = None
    stopped: bool = False
    _undoing: bool = field(default=False)

    def change(self, now: datetime) -> ChangeUnderWatch | None:
        """The run under watch at ``now``."""
        if self.started is None or now < self.started:
            return None
        ended = self.undone or self.finished
        over = ended is not None and now >= ended
        return ChangeUnderWatch(
            run_id=self.run_id,
            revision=self.revision,
            state=self._state(over=over),
            started_at=self.started,
            finished_at=ended if over else None,
        )

    def evidence(
        self, alerts: Sequence[Alert], change: ChangeUnderWatch | None, engine: Engine, now: datetime, *, recovery: str
    ) -> Evidence:
        """As the daemon gathers it, with the world's answers from the script."""
        concerned = tuple(alert for alert in alerts if alert.labels.get("matrix"))
        if not concerned:
            return Evidence(change=change)
        return Evidence(
            alerts=concerned,
            change=change,
            restore=self._certificate(),
            operations=operations_seen(engine, now),
            baseline=self.baseline,
            probe=self.probe,
            recovery=recovery,
            maintenance=self.maintenance,
        )

    def stop(self, now: datetime) -> None:
        """The migration is stopped."""
        if self.finished is None or self.finished > now:
            self.finished, self.stopped = now, True

    def undo(self, *, ended: datetime | None = None) -> None:
        """The migration is being taken back, or has been."""
        self._undoing, self.undone = ended is None, ended

    def _state(self, *, over: bool) -> ChangeState:
        if self._undoing:
            return ChangeState.UNDOING
        if self.undone is not None:
            return ChangeState.UNDONE
        if not over:
            return ChangeState.RUNNING
        return ChangeState.STOPPED if self.stopped else ChangeState.FINISHED

    def _certificate(self) -> RestoreCertificate:
        backup_id, backup_at = self.backup or ("", None)
        return RestoreCertificate(
            backup_id=backup_id,
            backup_at=backup_at,
            journal=self.journal,
            undo_estimate=self.put_back,
            restore_estimate=self.put_back,
            steps_estimate=timedelta(seconds=4 * _STEP_S),
        )


class WorldActions:
    """The :class:`agent.recovery.Actions` of a rehearsal: each takes its time on the clock, and may fail for good."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock

    def stop_change(self, run_id: str) -> str:
        del run_id
        self._world.stop(self._clock.now())
        return "it stopped at its next batch"

    def set_maintenance(self, *, enabled: bool, reason: str) -> str:
        del reason
        self._take(Operation.MAINTENANCE_ON if enabled else Operation.MAINTENANCE_OFF)
        self._world.maintenance = enabled
        return "traffic is stopped" if enabled else "traffic flows again"

    def choose_restore_point(self, run_id: str) -> RestorePoint:
        self._take(Operation.CHOOSE_BACKUP)
        if self._world.journal:
            return RestorePoint(kind="undo", id=run_id, detail="the run's undo journal")
        if self._world.backup is None:
            raise Permanent(PermanentReason.NOT_FOUND, f"run {run_id} has no undo journal and there is no backup")
        return RestorePoint(kind="backup", id=self._world.backup[0], detail=f"full restore of {self._world.backup[0]}")

    def put_back(self, point: RestorePoint, progress: ProgressSink) -> dict[str, int]:
        del point, progress
        self._world.undo()
        self._take(Operation.RESTORE_DATA, self._world.put_back.total_seconds())
        self._world.undo(ended=self._clock.now())
        return {"documents": self._world.documents, "kept": 0}

    def clear_caches(self) -> str:
        self._take(Operation.CLEAR_CACHES)
        return "cleared"

    def check_health(self) -> str:
        self._take(Operation.CHECK_HEALTH)
        return "the database answers"

    def _take(self, operation: Operation, seconds: float = _STEP_S) -> None:
        self._clock.sleep(seconds)
        if str(operation) in self._world.failing:
            raise Permanent(PermanentReason.UNSUPPORTED, f"the script says that {operation} fails")
