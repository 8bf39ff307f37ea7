"""The values of a recovery: what is to be done, what has been done, how long each step may take. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from agent.runbook import EmergencyStep, Operation

STOP_CHANGE = "stop_change"


class RecoveryState(StrEnum):
    """Where a recovery stands."""

    RUNNING = "running"
    DONE = "done"
    STUCK = "stuck"
    """A step failed past its retries: maintenance mode stays on and a person takes over."""


class StepState(StrEnum):
    """Where a step stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class RestorePoint:
    """What the documents are put back from.

    Args:
        kind: ``undo`` (the run's own journal: touches only what the migration touched) or ``backup``.
        id: the run's id, or the backup's.
        detail: a person's sentence about it.
    """

    kind: str
    id: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step.

    Args:
        name: an :class:`agent.runbook.Operation` value of the page's sequence, or ``stop_change``.
        budget: seconds the page gives it; ``None`` where it gives none.
        detail: what came of it, in a person's words.
    """

    name: str
    title: str
    budget: float | None
    state: StepState = StepState.PENDING
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    detail: str = ""

    @property
    def seconds(self) -> float | None:
        """Its duration so far it has ended; counted from its first start, restarts included."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def over_budget(self) -> bool:
        return self.budget is not None and self.seconds is not None and self.seconds > self.budget


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """One recovery, bound to one decision and so to one migration run.

    Args:
        budget: seconds the matrix row allows from the decision to recovery; ``None`` where it gives none.
        restore_point: known once its step is done.
        counts: figures of the undo or restore (documents undone, kept, ...).
    """

    id: str
    decision_id: str
    run_id: str
    condition: str
    started_at: datetime
    budget: float | None
    steps: tuple[StepRecord, ...]
    state: RecoveryState = RecoveryState.RUNNING
    finished_at: datetime | None = None
    restore_point: RestorePoint | None = None
    counts: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    def step(self, name: str) -> StepRecord:
        return next(step for step in self.steps if step.name == name)

    def with_step(self, changed: StepRecord) -> Recovery:
        return replace(self, steps=tuple(changed if step.name == changed.name else step for step in self.steps))

    @property
    def next_step(self) -> StepRecord | None:
        """The first step that isn't done; a step found running was interrupted and runs again."""
        return next((step for step in self.steps if step.state is not StepState.DONE), None)

    @property
    def seconds(self) -> float | None:
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None

    @property
    def seconds_to_traffic(self) -> float | None:
        """From the start until traffic flowed again: what the page's budget is about.

        The page gives the sequence "<5 minutes" and its five steps up to restored traffic exactly that much; the
        health check comes after it.
        """
        restored = next((step for step in self.steps if step.name == Operation.MAINTENANCE_OFF), None)
        end = restored.finished_at if restored is not None else self.finished_at
        return (end - self.started_at).total_seconds() if end is not None else None

    @property
    def over_budget(self) -> bool:
        taken = self.seconds_to_traffic
        return self.budget is not None and taken is not None and taken > self.budget


def planned(
    *,
    id: str,  # noqa: A002 - the field's name
    decision_id: str,
    run_id: str,
    condition: str,
    started_at: datetime,
    budget: timedelta | None,
    sequence: Iterable[EmergencyStep],
) -> Recovery:
    """A recovery whose steps are the page's emergency sequence, in the page's order.

    One step comes before the page's: the migration that is still writing is stopped. The page's reader did that by
    closing a terminal.
    """
    steps = [StepRecord(name=STOP_CHANGE, title="Stop the migration", budget=None)]
    steps += [
        StepRecord(name=str(step.operation), title=step.title, budget=step.budget.total_seconds()) for step in sequence
    ]
    return Recovery(
        id=id,
        decision_id=decision_id,
        run_id=run_id,
        condition=condition,
        started_at=started_at,
        budget=budget.total_seconds() if budget is not None else None,
        steps=tuple(steps),
    )


KNOWN_STEPS = frozenset(
    {
        STOP_CHANGE,
        Operation.MAINTENANCE_ON,
        Operation.CHOOSE_BACKUP,
        Operation.RESTORE_DATA,
        Operation.CLEAR_CACHES,
        Operation.MAINTENANCE_OFF,
        Operation.CHECK_HEALTH,
    }
)
"""Steps that a recovery can do; ``runbookd check`` refuses a page whose emergency sequence has another."""
