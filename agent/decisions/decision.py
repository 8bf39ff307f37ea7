"""A decision as a value, and what people are told about it.

Made by :mod:`agent.decisions.decide`, kept by the journal, carried out by recovery.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from agent.decisions.wording import duration
from agent.runbook import Severity


class Verdict(StrEnum):
    """What a decision comes to, the weightiest first."""

    ROLLBACK = "rollback"
    NEEDS_APPROVAL = "needs_approval"
    HELD = "held"
    INCONCLUSIVE = "inconclusive"
    FIX_FORWARD = "fix_forward"
    NOTHING = "nothing"


class Pace(StrEnum):
    """How the matrix wants a rollback."""

    IMMEDIATE = "immediate"
    QUICK = "quick"


class Means(StrEnum):
    """How the change can be taken back, the gentlest first."""

    UNDO = "undo"
    REREAD = "reread"
    RESTORE = "restore"


class Guard(StrEnum):
    """Who objected."""

    FADING = "fading"
    RECOVERY_RUNNING = "recovery_running"
    ROLLED_BACK = "rolled_back"
    NO_CHANGE = "no_change"
    IS_ROLLBACK = "is_rollback"
    BLIND = "blind"
    BEFORE_CHANGE = "before_change"
    AFTER_WINDOW = "after_window"
    LITTLE_TRAFFIC = "little_traffic"
    NO_BASELINE = "no_baseline"
    PROBE_DENIES = "probe_denies"
    UNREACHABLE = "unreachable"
    NO_RESTORE_POINT = "no_restore_point"
    HELD = "held"
    ABORTED = "aborted"
    DISARMED = "disarmed"
    COOLDOWN = "cooldown"
    DAILY_LIMIT = "daily_limit"
    APPROVAL = "approval"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A verdict on one row of the matrix.

    Args:
        id: stable for (run, condition), so that the same decision is never taken twice.
        condition: the matrix row's slug.
        incident: the ``condition`` label under which people see the alert as one incident.
        run_id: the migration run that the decision is bound to; ``""`` where there is none.
        means: how to roll back; None unless the verdict is ROLLBACK or NEEDS_APPROVAL.
        guards: every guard that objected.
        reasons: plain sentences without a full stop, the weightiest first.
        trace_id: trace of an operation that shows the trouble, may be ``""``.
        evidence: the evidence as JSON-able values.
    """

    id: str
    verdict: Verdict
    condition: str
    title: str
    severity: Severity
    incident: str
    run_id: str
    decided_at: datetime
    onset: datetime | None = None
    pace: Pace | None = None
    means: Means | None = None
    backup_id: str = ""
    budget: timedelta | None = None
    guards: tuple[Guard, ...] = ()
    reasons: tuple[str, ...] = ()
    trace_id: str = ""
    evidence: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Note:
    """What people are told about a decision; ``severity`` is a value of the ``severity`` label of a rule."""

    condition: str
    text: str
    severity: str
    details: dict[str, str]


def note_of(decision: Decision) -> Note | None:
    """What to tell people about ``decision``; None where the alert itself says it all, or recovery will."""
    budget = f" within {duration(decision.budget)}" if decision.budget else ""
    match decision.verdict:
        case Verdict.FIX_FORWARD:
            text = f"The runbook says: fix forward{budget}. Nothing is rolled back."
        case Verdict.INCONCLUSIVE:
            text = "No automatic rollback: the evidence is not clear. A person has to decide."
        case Verdict.NEEDS_APPROVAL:
            text = f"A full restore needs approval: runbookd automation approve {decision.id}"
        case Verdict.HELD:
            text = "The automation is held back and does nothing by itself."
        case Verdict.ROLLBACK | Verdict.NOTHING:
            return None
    details = {"decision": decision.id, "verdict": str(decision.verdict)}
    if decision.run_id:
        details["migration run"] = decision.run_id
    details["why"] = "; ".join(decision.reasons)
    return Note(condition=decision.incident, text=text, severity=_LABEL[decision.severity], details=details)


_LABEL = {
    Severity.CRITICAL: "critical",
    Severity.HIGH: "critical",
    Severity.MEDIUM: "warning",
    Severity.LOW: "info",
}
