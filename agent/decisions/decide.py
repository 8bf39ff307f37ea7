"""From the runbook's matrix and the evidence to a verdict, with its reasons: a pure function.

Called by :class:`~agent.decisions.automation.Decisions` after each pass over the rules, and by backtests. Rows are
judged in the matrix's order, which is the order of severity, and at most one of them ends in a rollback.

A row that asks for a rollback gets it only if none of :data:`~agent.decisions.guards.GUARDS` objects. All objections
are collected, so that a person reads the whole truth; the first one decides the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from agent.alerting import AlertState
from agent.decisions.decision import Decision, Guard, Means, Pace, Verdict
from agent.decisions.evidence import ChangeUnderWatch, Evidence, Probe
from agent.decisions.guards import GUARDS, Case, Objection, fading, means_of
from agent.decisions.restraint import Restraint
from agent.decisions.wording import duration, figure, moment
from agent.runbook import Action, MatrixRow, Policy


def decide(
    rows: Sequence[MatrixRow], evidence: Evidence, policy: Policy, restraint: Restraint, now: datetime
) -> Decision | None:
    """The one decision to act on: the rollback if there is one, else the weightiest verdict.

    Returns:
        None if no alert of any of ``rows`` fires.
    """
    decisions = decide_each(rows, evidence, policy, restraint, now)
    return min(decisions, key=lambda decision: _WEIGHT[decision.verdict], default=None)


def decide_each(
    rows: Sequence[MatrixRow], evidence: Evidence, policy: Policy, restraint: Restraint, now: datetime
) -> tuple[Decision, ...]:
    """A decision for every row that has an alert, in the order of ``rows``; at most one is a rollback."""
    decisions: list[Decision] = []
    leading: Decision | None = None
    for row in rows:
        decision = _decide_row(row, evidence, policy, restraint, now)
        if decision is None:
            continue
        if decision.verdict in _ACTING and leading is not None:
            reason = f"the rollback for {leading.title!r} covers this"
            decision = replace(
                decision,
                verdict=Verdict.NOTHING,
                pace=None,
                means=None,
                guards=(Guard.RECOVERY_RUNNING,),
                reasons=(reason, *decision.reasons),
            )
        elif decision.verdict is Verdict.ROLLBACK:
            leading = decision
        decisions.append(decision)
    return tuple(decisions)


_WEIGHT = {verdict: weight for weight, verdict in enumerate(Verdict)}
_ACTING = (Verdict.ROLLBACK, Verdict.NEEDS_APPROVAL)
_PACE = {Action.IMMEDIATE_ROLLBACK: Pace.IMMEDIATE, Action.QUICK_ROLLBACK: Pace.QUICK}


def _decide_row(
    row: MatrixRow, evidence: Evidence, policy: Policy, restraint: Restraint, now: datetime
) -> Decision | None:
    """The weightiest verdict over the row's alerts: one slow query may be old while another began with the change."""
    alerts = [
        alert
        for alert in evidence.alerts
        if alert.labels.get("matrix") == row.condition and alert.state in (AlertState.FIRING, AlertState.RECOVERING)
    ]
    decisions = (
        _decide_alert(Case(row=row, alert=alert, evidence=evidence, restraint=restraint, policy=policy, now=now))
        for alert in alerts
    )
    return min(decisions, key=lambda decision: (_WEIGHT[decision.verdict], decision.onset or now), default=None)


def _decide_alert(case: Case) -> Decision:
    # Fixing forward changes nothing by itself, so it needs no leave; only an alert that is fading isn't worth a word.
    guards = GUARDS if case.row.rolls_back else (fading,)
    objections = [objection for guard in guards if (objection := guard(case)) is not None]
    if objections:
        return _decision(
            case, objections[0].verdict, objections, [*(item.reason for item in objections), _symptom(case)]
        )
    if case.row.rolls_back:
        return _decision(case, Verdict.ROLLBACK, (), [_symptom(case), *_in_favour(case)])
    return _decision(case, Verdict.FIX_FORWARD, (), ["the runbook says to fix this forward", _symptom(case)])


def _decision(case: Case, verdict: Verdict, objections: Iterable[Objection], reasons: Iterable[str]) -> Decision:
    change = case.evidence.change
    run_id = change.run_id if change else ""
    # Without a run, an incident of its own is what "the same decision" means.
    subject = run_id or case.alert.active_since.astimezone(UTC).strftime("none-%Y%m%dT%H%M%S")
    return Decision(
        id=f"{subject}.{case.row.condition}",
        verdict=verdict,
        condition=case.row.condition,
        title=case.row.title,
        severity=case.row.severity,
        incident=case.alert.labels.get("condition", case.row.condition),
        run_id=run_id,
        decided_at=case.now,
        onset=case.alert.active_since,
        pace=_PACE.get(case.row.action) if verdict in _ACTING else None,
        means=means_of(case) if verdict in _ACTING else None,
        backup_id=case.evidence.restore.backup_id,
        budget=case.row.budget,
        guards=tuple(objection.guard for objection in objections),
        reasons=tuple(reasons),
        trace_id=case.alert.trace_id,
        evidence=case.evidence.snapshot(),
    )


# --- reasons --------------------------------------------------------------------------------------------------------


def _symptom(case: Case) -> str:
    since = f"since {moment(case.alert.active_since)}"
    threshold = case.row.threshold
    if threshold is None:
        return f"{case.row.title}: the alert {case.alert.rule} fires {since}"
    return f"{case.row.title}: {figure(case.alert.value, threshold.unit)} against {threshold.text} {since}"


def _in_favour(case: Case) -> list[str]:
    change = case.evidence.change
    assert change is not None  # the guard _no_change has passed
    reasons = [
        f"run {change.run_id} ({change.revision}) started at {moment(change.started_at)}, "
        f"{duration(case.alert.active_since - change.started_at)} before the trouble",
        _way_back(case, change),
        _arithmetic(case),
    ]
    if case.evidence.probe is Probe.UNKNOWN:
        reasons.append("no independent probe has spoken")
    elif case.evidence.probe is Probe.CONFIRMS:
        reasons.append("an independent probe confirms the trouble")
    if case.evidence.maintenance:
        reasons.append("maintenance mode is on already")
    return reasons


def _way_back(case: Case, change: ChangeUnderWatch) -> str:
    match means_of(case):
        case Means.UNDO:
            return "the undo journal is there: only documents that the run changed are touched"
        case Means.REREAD:
            age = duration(case.now - change.started_at)
            return f"no undo journal, but the run is {age} old: its before-images are read from the database's history"
        case _:
            approval = case.restraint.approval(change.run_id, case.now)
            by = f", approved by {approval.owner}" if approval else ""
            return f"full restore of backup {case.evidence.restore.backup_id}{by}"


def _arithmetic(case: Case) -> str:
    restore, budget = case.evidence.restore, case.row.budget
    work = restore.restore_estimate if means_of(case) is Means.RESTORE else restore.undo_estimate
    if work is None:
        return "how long it takes has not been measured"
    total = work + restore.steps_estimate
    text = f"about {duration(total)}: {duration(work)} of writing, {duration(restore.steps_estimate)} of other steps"
    if budget is None:
        return text
    fits = "within" if total <= budget else "OVER"
    return f"{text}; {fits} the runbook's {duration(budget)}"
