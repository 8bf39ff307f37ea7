"""The change under watch: the migration run that an alert may be the fault of.

Read from the run records on disk at every tick, so that a run started from the command line is watched like one that
the daemon started, and a restarted daemon knows what was going on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from agent.decisions import ChangeState, ChangeUnderWatch
from agent.migration import RunRecord, RunState
from agent.signals import Baseline, BaselineRecorder
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import MIGRATION_ACTIVE, MIGRATION_MISMATCHES

_log = logging.getLogger(__name__)
_STATES: Mapping[RunState, ChangeState] = {
    RunState.RUNNING: ChangeState.RUNNING,
    RunState.PAUSED: ChangeState.STOPPED,
    RunState.CANCELLED: ChangeState.STOPPED,
    RunState.FAILED: ChangeState.FAILED,
    RunState.DONE: ChangeState.FINISHED,
    RunState.UNDOING: ChangeState.UNDOING,
    RunState.UNDONE: ChangeState.UNDONE,
}


class ChangeWatch:
    """Follows the newest migration run and takes its latency baseline.

    Args:
        newest: the newest run on disk, or ``None``.
        watch: how long after its end a run stays under watch.
    """

    def __init__(
        self,
        *,
        newest: Callable[[], RunRecord | None],
        baseline: BaselineRecorder,
        watch: timedelta,
        telemetry: Telemetry,
    ) -> None:
        self._newest = newest
        self._baseline = baseline
        self._watch = watch
        self._record: RunRecord | None = None
        self._active = False
        telemetry.observe(MIGRATION_ACTIVE, self._observe_active)
        telemetry.observe(MIGRATION_MISMATCHES, self._observe_mismatches)

    @property
    def record(self) -> RunRecord | None:
        """The run under watch, if any."""
        return self._record if self._active else None

    @property
    def baseline(self) -> Baseline | None:
        """The latency baseline of the run under watch, if any."""
        record = self.record
        return self._baseline.watch(record.id) if record is not None else None

    @property
    def has_baseline(self) -> bool:
        baseline = self.baseline
        return baseline is not None and bool(baseline.p95)

    def refresh(self, now: datetime) -> ChangeUnderWatch | None:
        """Look at the disk; returns the run under watch."""
        record = self._newest()
        self._record = record
        if record is None:
            self._active = False
            self._baseline.watch(None)
            return None
        ended = record.undo_finished or record.finished
        self._active = ended is None or now - ended <= self._watch
        if not self._active:
            self._baseline.watch(None)
            return None
        if self._baseline.watch(record.id) is None:
            # The samples before the run are still in the store, whoever started it.
            taken = self._baseline.take(record.id, record.started)
            _log.info("latency baseline taken", extra={"run": record.id, "p95": dict(taken.p95)})
        return ChangeUnderWatch(
            run_id=record.id,
            revision=record.name,
            state=_STATES[record.state],
            started_at=record.started,
            finished_at=record.undo_finished or record.finished,
            collections=tuple(part.collection for part in record.collections),
            disarmed=record.disarmed,
        )

    def _observe_active(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        yield (1.0 if self._active else 0.0), {}

    def _observe_mismatches(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        """As the run's record has them, for runs of other processes and after the worker's end; none after the undo."""
        record = self.record
        if record is None:
            return
        for part in record.collections:
            yield (0.0 if record.state is RunState.UNDONE else float(part.mismatched)), {"collection": part.collection}
