"""A world to recover: it remembers what was done to it and fails or crashes where it is told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from agent.clock import ManualClock
from agent.recovery import Recovery, RecoveryJournal, RecoveryRunner, RestorePoint, StepRecord
from agent.runbook import Policy
from agent.state import StateFile
from agent.telemetry import ProgressSink, quiet_telemetry


class Killed(BaseException):
    """Stands for kill -9: no handler of the product sees it."""


@dataclass
class World:
    """The :class:`agent.recovery.Actions` port."""

    clock: ManualClock
    maintenance: bool = False
    done: list[str] = field(default_factory=list)
    failures: dict[str, list[BaseException]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def _act(self, name: str) -> None:
        self.clock.advance(self.seconds.get(name, 1.0))
        queue = self.failures.get(name)
        if queue:
            error = queue.pop(0)
            if error is not _PASS:
                raise error
        self.done.append(name)

    def stop_change(self, run_id: str) -> str:
        self._act("stop_change")
        return f"{run_id} stopped"

    def set_maintenance(self, *, enabled: bool, reason: str) -> str:
        self._act("maintenance_on" if enabled else "maintenance_off")
        self.maintenance = enabled
        return reason

    def choose_restore_point(self, run_id: str) -> RestorePoint:
        self._act("choose_backup")
        return RestorePoint(kind="undo", id=run_id, detail="the run's undo journal")

    def put_back(self, point: RestorePoint, progress: ProgressSink) -> dict[str, int]:
        del point, progress
        self._act("restore_data")
        return {"documents": 100, "kept": 2}

    def clear_caches(self) -> str:
        self._act("clear_caches")
        return "cleared"

    def check_health(self) -> str:
        self._act("check_health")
        return "healthy"


_PASS = RuntimeError("let this call through")


def later(error: BaseException, *, after: int) -> list[BaseException]:
    """Fail the call that follows ``after`` good ones."""
    return [_PASS] * after + [error]


@dataclass
class Bench:
    """A runner, its world and its disk; :meth:`restart` is a new process on the same disk."""

    path: Path
    policy: Policy
    clock: ManualClock
    world: World
    stop: str = ""
    events: list[tuple[Recovery, StepRecord | None]] = field(default_factory=list)
    runner: RecoveryRunner = field(init=False)
    journal: RecoveryJournal = field(init=False)
    state: StateFile = field(init=False)

    def __post_init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self.state = StateFile(self.path)
        self.journal = RecoveryJournal(self.state)
        self.runner = RecoveryRunner(
            policy=lambda: self.policy,
            actions=self.world,
            journal=self.journal,
            clock=self.clock,
            telemetry=quiet_telemetry(),
            retries=3,
            stop_requested=lambda _: self.stop if "restore_data" in self.world.done else "",
            listener=lambda recovery, step: self.events.append((recovery, step)),
        )

    def restart(self) -> None:
        self.state.close()
        self._open()

    def begin(self, decision_id: str = "decision-1") -> Recovery:
        return self.runner.begin(
            decision_id=decision_id, run_id="run-1", condition="error_rate", budget=timedelta(minutes=5)
        )
