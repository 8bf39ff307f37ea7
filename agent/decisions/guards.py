"""The guards: each one answers None, or why a rollback must not happen by itself.

Each is here because a rollback without it has hurt somebody: one that answers an old fault with the newest change, one
on three requests of which one failed, one that undoes an undo, one that restores over a database which is merely down.
Called by :mod:`agent.decisions.decide`, which collects all objections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.alerting import Alert, AlertState
from agent.decisions.decision import Guard, Means, Verdict
from agent.decisions.evidence import ChangeState, Evidence, Probe
from agent.decisions.restraint import Restraint
from agent.decisions.wording import blindness, duration, moment
from agent.runbook import MatrixRow, Policy

# The row that is about a change in comparison with earlier, as opposed to a level.
_COMPARED = frozenset({"performance_degradation"})

# How long an alert may go on after its cause is gone, where the row has no budget to measure it by.
_SETTLE = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One alert of one row, with all that is known."""

    row: MatrixRow
    alert: Alert
    evidence: Evidence
    restraint: Restraint
    policy: Policy
    now: datetime


@dataclass(frozen=True, kw_only=True)
class Objection:
    """Why not, and what the decision comes to then."""

    guard: Guard
    verdict: Verdict
    reason: str


def means_of(case: Case) -> Means | None:
    """The gentlest way back that there is; None if there is none."""
    change, restore = case.evidence.change, case.evidence.restore
    if change is None:
        return None
    if restore.journal:
        return Means.UNDO
    if case.now - change.started_at <= case.restraint.limits.reread:
        return Means.REREAD
    if restore.backup_id and (restore.backup_at is None or restore.backup_at <= change.started_at):
        return Means.RESTORE
    return None


def approver(policy: Policy) -> str:
    """The role that the escalation path names for major decisions, else its last level."""
    for step in policy.escalation:
        words = step.note.casefold()
        if "full rollback" in words or "major decision" in words:
            return step.role
    return policy.escalation[-1].role if policy.escalation else "a person in charge"


def fading(case: Case) -> Objection | None:
    """The one guard that also holds for rows which are fixed forward."""
    if case.alert.state is not AlertState.RECOVERING:
        return None
    return _nothing(Guard.FADING, "the condition no longer holds; the alert waits to see whether it stays away")


def _recovery_running(case: Case) -> Objection | None:
    if not case.evidence.recovery:
        return None
    return _nothing(Guard.RECOVERY_RUNNING, f"recovery {case.evidence.recovery} is under way; one at a time")


def _rolled_back(case: Case) -> Objection | None:
    change = case.evidence.change
    if change is None:
        return None
    past = case.restraint.rollback(change.run_id)
    if change.state is ChangeState.UNDOING or (past is not None and past.concluded_at is None):
        return _nothing(Guard.ROLLED_BACK, f"run {change.run_id} is being rolled back already")
    if past is not None:
        ended = past.concluded_at
    elif change.state is ChangeState.UNDONE:
        ended = change.finished_at
    else:
        return None
    ended = ended or case.now
    if case.alert.active_since > ended:
        return _inconclusive(
            Guard.ROLLED_BACK,
            f"this began {duration(case.alert.active_since - ended)} after run {change.run_id} was rolled back: "
            "the cause is something else",
        )
    if case.now - ended > (case.row.budget or _SETTLE):
        return _inconclusive(
            Guard.ROLLED_BACK,
            f"the alert still fires {duration(case.now - ended)} after run {change.run_id} was rolled back",
        )
    return _nothing(Guard.ROLLED_BACK, f"run {change.run_id} has just been rolled back; the alert has yet to settle")


def _no_change(case: Case) -> Objection | None:
    if case.evidence.change is not None:
        return None
    return _inconclusive(Guard.NO_CHANGE, "no migration run is under watch: there is nothing to roll back")


def _is_rollback(case: Case) -> Objection | None:
    change = case.evidence.change
    if change is None or not change.rolls_back:
        return None
    return _inconclusive(
        Guard.IS_ROLLBACK,
        f"the newest change, {change.run_id}, is itself the rollback of {change.rolls_back}; that is never undone",
    )


def _blind(case: Case) -> Objection | None:
    if not case.alert.blind:
        return None
    return _inconclusive(
        Guard.BLIND, f"the alert is blind ({blindness(case.alert.blind)}): its last state is kept, not known to hold"
    )


def _before_change(case: Case) -> Objection | None:
    change = case.evidence.change
    if change is None or case.alert.active_since >= change.started_at:
        return None
    return _inconclusive(
        Guard.BEFORE_CHANGE,
        f"the trouble began at {moment(case.alert.active_since)}, before run {change.run_id} started at "
        f"{moment(change.started_at)}",
    )


def _after_window(case: Case) -> Objection | None:
    change = case.evidence.change
    if change is None or change.finished_at is None:
        return None
    window = case.restraint.limits.observation
    late = case.alert.active_since - change.finished_at
    if late <= window:
        return None
    return _inconclusive(
        Guard.AFTER_WINDOW,
        f"the trouble began {duration(late)} after run {change.run_id} ended; it is under watch for {duration(window)}",
    )


def _little_traffic(case: Case) -> Objection | None:
    if case.row.threshold is None:
        return None
    least, seen = case.restraint.limits.minimum_operations, case.evidence.operations
    if seen is None:
        return _inconclusive(Guard.LITTLE_TRAFFIC, "how many operations there were is not known")
    if seen < least:
        return _inconclusive(
            Guard.LITTLE_TRAFFIC,
            f"only {seen:,.0f} operations were seen; a ratio of fewer than {least:,.0f} says little",
        )
    return None


def _no_baseline(case: Case) -> Objection | None:
    if case.row.condition not in _COMPARED or case.evidence.baseline:
        return None
    return _inconclusive(
        Guard.NO_BASELINE, "no comparable baseline was recorded before the run: a degradation can't be measured"
    )


def _probe(case: Case) -> Objection | None:
    if case.evidence.probe is Probe.UNREACHABLE:
        return _inconclusive(
            Guard.UNREACHABLE,
            "the database doesn't answer an independent probe: an outage, in which nothing can be undone either",
        )
    if case.evidence.probe is Probe.DENIES:
        return _inconclusive(
            Guard.PROBE_DENIES, "an independent probe finds the database in order and contradicts the alert"
        )
    return None


def _no_restore_point(case: Case) -> Objection | None:
    if case.evidence.change is None or means_of(case) is not None:
        return None
    return _inconclusive(
        Guard.NO_RESTORE_POINT, "nothing to go back to: no undo journal and no verified backup from before the run"
    )


def _held(case: Case) -> Objection | None:
    hold = case.restraint.hold(case.now)
    if hold is None:
        return None
    return _objection(
        Guard.HELD, Verdict.HELD, f"{hold.owner} holds the automation until {moment(hold.expires_at)}: {hold.reason}"
    )


def _aborted(case: Case) -> Objection | None:
    change = case.evidence.change
    abort = case.restraint.abort(change.run_id) if change else None
    if abort is None:
        return None
    return _objection(
        Guard.ABORTED, Verdict.HELD, f"{abort.owner} took run {abort.run_id} out of the automation: {abort.reason}"
    )


def _disarmed(case: Case) -> Objection | None:
    change = case.evidence.change
    if change is None or not change.disarmed:
        return None
    return _objection(
        Guard.DISARMED,
        Verdict.HELD,
        f"run {change.run_id} was started without its automatic rollback ({change.disarmed}): it is for a person to"
        " roll it back",
    )


def _cooldown(case: Case) -> Objection | None:
    pause = case.restraint.limits.cooldown
    run_id = case.evidence.change.run_id if case.evidence.change else ""
    # Of other runs: about this one's own rollback, _rolled_back has the say.
    others = (past.concluded_at or past.decided_at for past in case.restraint.rollbacks if past.run_id != run_id)
    last = max(others, default=None)
    if last is None or case.now - last >= pause:
        return None
    return _objection(
        Guard.COOLDOWN,
        Verdict.HELD,
        f"the last rollback was {duration(case.now - last)} ago; the next one may start by itself after "
        f"{duration(pause)}",
    )


def _daily_limit(case: Case) -> Objection | None:
    limit = case.restraint.limits.daily_limit
    day = timedelta(hours=24)
    recent = sum(1 for past in case.restraint.rollbacks if case.now - past.decided_at < day)
    if recent < limit:
        return None
    return _objection(Guard.DAILY_LIMIT, Verdict.HELD, f"{recent} rollbacks within 24 hours; the limit is {limit}")


def _approval(case: Case) -> Objection | None:
    change = case.evidence.change
    if change is None or means_of(case) is not Means.RESTORE or case.restraint.approval(change.run_id, case.now):
        return None
    return _objection(
        Guard.APPROVAL,
        Verdict.NEEDS_APPROVAL,
        f"there is no undo journal, so only a full restore of {case.evidence.restore.backup_id} would help, and that "
        f"is for the {approver(case.policy)} to approve",
    )


# The order decides the verdict when several object: first what makes the question moot, then what makes the answer
# uncertain, then what a person or a limit forbids, and last what only lacks a signature.
GUARDS: tuple[Callable[[Case], Objection | None], ...] = (
    fading,
    _recovery_running,
    _rolled_back,
    _no_change,
    _is_rollback,
    _blind,
    _before_change,
    _after_window,
    _little_traffic,
    _no_baseline,
    _probe,
    _no_restore_point,
    _held,
    _aborted,
    _disarmed,
    _cooldown,
    _daily_limit,
    _approval,
)


def _nothing(guard: Guard, reason: str) -> Objection:
    return _objection(guard, Verdict.NOTHING, reason)


def _inconclusive(guard: Guard, reason: str) -> Objection:
    return _objection(guard, Verdict.INCONCLUSIVE, reason)


def _objection(guard: Guard, verdict: Verdict, reason: str) -> Objection:
    return Objection(guard=guard, verdict=verdict, reason=reason)
