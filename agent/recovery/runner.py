"""Runs a recovery step by step; picks it up again after a crash; never leaves the database half-open.

Every step is safe to run twice, because a process can die between doing it and writing down that it is done. A step
that fails for a passing reason is tried again; one that fails for good stops the recovery with maintenance mode left
on (or put back on), and people are told. Called by the daemon when a decision says rollback, and by
``runbookd rollback``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason, RunbookdError
from agent.recovery.journal import RecoveryJournal
from agent.recovery.saga import STOP_CHANGE, Recovery, RecoveryState, RestorePoint, StepRecord, StepState, planned
from agent.runbook import Operation, Policy
from agent.telemetry import ProgressSink, Telemetry, ignore_progress
from agent.telemetry.catalogue import RECOVERY_ACTIVE, RECOVERY_STEP_DURATION

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_HEALTH_PAUSE_S = 0.5


class Actions(Protocol):
    """What the steps do to the world; every call may be repeated after a crash.

    Each raises a :class:`RunbookdError`: ``Transient`` to be tried again, anything else to stop.
    """

    def stop_change(self, run_id: str) -> str:
        """Make sure that nothing of run ``run_id`` writes any more; returns what was done."""

    def set_maintenance(self, *, enabled: bool, reason: str) -> str:
        """Stop or restore incoming traffic."""

    def choose_restore_point(self, run_id: str) -> RestorePoint:
        """The run's undo journal, or the newest verified backup older than the run."""

    def put_back(self, point: RestorePoint, progress: ProgressSink) -> dict[str, int]:
        """Undo or restore; returns counts, ``documents`` and ``kept`` among them."""

    def clear_caches(self) -> str:
        """Clear the caches that are configured."""

    def check_health(self) -> str:
        """Return what was checked; raise what is wrong."""


class _Interrupted(Exception):
    """This process is stopping: what is on disk says that the step is running, and the next process repeats it."""


RecoveryListener = Callable[[Recovery, StepRecord | None], None]
"""Told after every change: the recovery, and the step that changed (None for the recovery as a whole)."""


class RecoveryRunner:
    """Runs one recovery at a time.

    Args:
        retries: how often a step that failed for a passing reason is tried again.
        exclusive: held while a recovery runs, so that two processes never run one at the same time.
        stop_requested: why people want the rollback of a run stopped, ``""`` if nobody does; asked before each step.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        actions: Actions,
        journal: RecoveryJournal,
        clock: Clock,
        telemetry: Telemetry,
        retries: int = 3,
        exclusive: Callable[[], AbstractContextManager[object]] = nullcontext,
        stop_requested: Callable[[str], str] = lambda _run_id: "",
        listener: RecoveryListener = lambda _recovery, _step: None,
        progress: ProgressSink = ignore_progress,
    ) -> None:
        self._policy = policy
        self._actions = actions
        self._journal = journal
        self._clock = clock
        self._telemetry = telemetry
        self._retries = retries
        self._exclusive = exclusive
        self._stop_requested = stop_requested
        self._listener = listener
        self._progress = progress
        self._running = threading.Lock()
        telemetry.observe(RECOVERY_ACTIVE, lambda: [(self._activity(), {})])

    def begin(self, *, decision_id: str, run_id: str, condition: str, budget: timedelta | None) -> Recovery:
        """Write down a recovery that is about to run; the same decision always gives the same one.

        Raises:
            Refused: another recovery is under way.
        """
        known = self._journal.of_decision(decision_id)
        if known is not None:
            return known
        other = self._journal.unfinished()
        if other is not None:
            raise Refused(
                RefusedReason.ALREADY_RUNNING,
                f"recovery {other.id} of run {other.run_id} is under way",
                hint="one recovery runs at a time; wait for it or look at `runbookd automation status`",
            )
        now = self._clock.now()
        recovery = planned(
            id=f"recovery-{now:%Y%m%d-%H%M%S}-{decision_id[-6:]}",
            decision_id=decision_id,
            run_id=run_id,
            condition=condition,
            started_at=now,
            budget=budget,
            sequence=self._policy().emergency,
        )
        self._journal.save(recovery)
        self._listener(recovery, None)
        return recovery

    def run(self, recovery: Recovery) -> Recovery:
        """Carry ``recovery`` on from the first step that isn't done; returns it done or stuck.

        It comes back still running if this process is told to stop: the next one carries on with :meth:`resume`.

        Raises:
            Refused: another process is carrying out a recovery.
        """
        with (
            self._running,
            self._exclusive(),
            self._telemetry.span(
                "recovery",
                {
                    "recovery.id": recovery.id,
                    "recovery.condition": recovery.condition,
                    "migration.run": recovery.run_id,
                },
            ),
        ):
            while recovery.state is RecoveryState.RUNNING and (step := recovery.next_step) is not None:
                why = self._stop_requested(recovery.run_id)
                try:
                    recovery = self._stopped(recovery, step, why) if why else self._do(recovery, step)
                except _Interrupted:
                    _log.warning("interrupted; the next start carries on", extra={"recovery": recovery.id})
                    return recovery
            if recovery.state is RecoveryState.RUNNING:
                recovery = replace(recovery, state=RecoveryState.DONE, finished_at=self._clock.now())
                self._journal.save(recovery)
                self._listener(recovery, None)
            return recovery

    def resume(self) -> Recovery | None:
        """Finish what a killed process left; ``None`` if there is nothing."""
        left = self._journal.unfinished()
        if left is None:
            return None
        _log.warning("resuming a recovery that was interrupted", extra={"recovery": left.id})
        return self.run(left)

    def retry(self, recovery: Recovery) -> Recovery:
        """Carry on with a stuck recovery because a person says so, from the step that failed."""
        recovery = replace(recovery, state=RecoveryState.RUNNING, finished_at=None, problem="")
        step = recovery.next_step
        if step is not None:
            recovery = recovery.with_step(replace(step, state=StepState.PENDING, attempts=0))
        self._journal.save(recovery)
        return self.run(recovery)

    # --- inside -----------------------------------------------------------------------------------------------

    def _do(self, recovery: Recovery, step: StepRecord) -> Recovery:
        """One step with its retries; the record is on disk before the step starts and after it ends."""
        while True:
            now = self._clock.now()
            step = replace(
                step, state=StepState.RUNNING, attempts=step.attempts + 1, started_at=step.started_at or now, detail=""
            )
            recovery = recovery.with_step(step)
            self._journal.save(recovery)
            self._listener(recovery, step)
            began = self._clock.monotonic()
            try:
                with self._telemetry.span(f"recovery {step.name}", {"recovery.attempt": step.attempts}):
                    recovery, detail = self._perform(recovery, step)
            except RunbookdError as error:
                self._measure(step, began, str(error.reason))
                if error.reason is PermanentReason.CANCELLED:
                    raise _Interrupted from error
                if error.retryable and step.attempts <= self._retries:
                    _log.warning(
                        "a recovery step failed and is tried again", extra={"step": step.name, "why": str(error)}
                    )
                    self._clock.sleep(_FIRST_PAUSE_S * 2 ** (step.attempts - 1))
                    continue
                return self._stuck(recovery, step, error)
            except Exception as error:  # noqa: BLE001 - a bug in a step must end in maintenance mode, not in silence
                _log.exception("a recovery step failed unexpectedly", extra={"step": step.name})
                self._measure(step, began, "internal")
                return self._stuck(recovery, step, error)
            self._measure(step, began, "ok")
            step = replace(step, state=StepState.DONE, finished_at=self._clock.now(), detail=detail)
            recovery = recovery.with_step(step)
            self._journal.save(recovery)
            self._listener(recovery, step)
            return recovery

    def _perform(self, recovery: Recovery, step: StepRecord) -> tuple[Recovery, str]:
        actions = self._actions
        match step.name:
            case str(name) if name == STOP_CHANGE:
                return recovery, actions.stop_change(recovery.run_id)
            case Operation.MAINTENANCE_ON:
                return recovery, actions.set_maintenance(enabled=True, reason=f"Rolling back: {recovery.condition}")
            case Operation.CHOOSE_BACKUP:
                point = actions.choose_restore_point(recovery.run_id)
                return replace(recovery, restore_point=point), point.detail
            case Operation.RESTORE_DATA:
                point = recovery.restore_point or actions.choose_restore_point(recovery.run_id)
                counts = actions.put_back(point, self._progress)
                kept = f", {counts['kept']:,} changed by others since and kept" if counts.get("kept") else ""
                return replace(recovery, counts=counts), f"{counts.get('documents', 0):,} documents put back{kept}"
            case Operation.CLEAR_CACHES:
                return recovery, actions.clear_caches()
            case Operation.MAINTENANCE_OFF:
                return recovery, actions.set_maintenance(enabled=False, reason="")
            case Operation.CHECK_HEALTH:
                return recovery, self._healthy(step)
            case _:
                raise Permanent(
                    PermanentReason.UNSUPPORTED,
                    f"the page's emergency sequence has a step that a recovery can't do: {step.title}",
                    hint="run `runbookd check` on the page",
                )

    def _healthy(self, step: StepRecord) -> str:
        """Ask until it is healthy or the step's budget is used up: the first answer after a restart is often no."""
        deadline = self._clock.monotonic() + (step.budget or 30.0)
        while True:
            try:
                return self._actions.check_health()
            except RunbookdError as error:
                if self._clock.monotonic() + _HEALTH_PAUSE_S >= deadline:
                    raise Permanent(
                        PermanentReason.UNHEALTHY, f"still unhealthy at the end of the step's budget: {error}"
                    ) from error
                self._clock.sleep(_HEALTH_PAUSE_S)

    def _stopped(self, recovery: Recovery, step: StepRecord, why: str) -> Recovery:
        """A person stepped in: leave everything as it is, maintenance mode included."""
        recovery = replace(
            recovery,
            state=RecoveryState.STUCK,
            finished_at=self._clock.now(),
            problem=f"stopped before {step.title!r}, {why}",
        )
        self._journal.save(recovery)
        self._listener(recovery, None)
        return recovery

    def _stuck(self, recovery: Recovery, step: StepRecord, error: Exception) -> Recovery:
        """Leave the door closed: maintenance mode on, the state on disk, people told by the listener."""
        problem = f"{step.title}: {error}"
        if step.name != Operation.MAINTENANCE_ON:
            try:
                self._actions.set_maintenance(enabled=True, reason=f"Recovery stuck: {recovery.condition}")
            except RunbookdError as closing:
                problem += f"; and maintenance mode could not be kept on: {closing}"
        step = replace(step, state=StepState.FAILED, finished_at=self._clock.now(), detail=str(error))
        recovery = replace(
            recovery.with_step(step), state=RecoveryState.STUCK, finished_at=self._clock.now(), problem=problem
        )
        self._journal.save(recovery)
        _log.error("the recovery is stuck; maintenance mode stays on", extra={"recovery": recovery.id, "why": problem})
        self._listener(recovery, step)
        self._listener(recovery, None)
        return recovery

    def _measure(self, step: StepRecord, began: float, outcome: str) -> None:
        seconds = self._clock.monotonic() - began
        self._telemetry.record(RECOVERY_STEP_DURATION, seconds, {"step": step.name, "outcome": outcome})

    def _activity(self) -> float:
        latest = self._journal.latest()
        if latest is None or latest.state is RecoveryState.DONE:
            return 0.0
        return 1.0 if latest.state is RecoveryState.RUNNING else 2.0
