"""The decision as a table: what each guard says, and that none of them can be passed over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.alerting import AlertState
from agent.decisions import (
    Abort,
    Approval,
    ChangeState,
    Decision,
    Evidence,
    Guard,
    Hold,
    Means,
    Pace,
    PastRollback,
    Probe,
    RestoreCertificate,
    Restraint,
    Verdict,
    decide,
    decide_each,
    note_of,
)
from agent.runbook import Policy
from tests.decisions.scene import CHANGE, CLEAR, NOW, ONSET, RESTORE, START, matrix_alert

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
HOLD = Hold(id=1, owner="ana", reason="deploying", placed_at=START, expires_at=NOW + HOUR)
ABORT = Abort(decision_id="r1.error_rate", run_id="r1", owner="ana", reason="by hand", at=START)
APPROVAL = Approval(decision_id="r1.error_rate", run_id="r1", owner="mei", given_at=NOW, expires_at=NOW + HOUR)
NO_JOURNAL = replace(RESTORE, journal=False)
OLD_CHANGE = replace(CHANGE, started_at=NOW - 2 * HOUR)


def past(run_id: str, ago: timedelta, *, took: timedelta | None = MINUTE) -> PastRollback:
    decided = NOW - ago
    concluded = decided + took if took is not None else None
    return PastRollback(decision_id=f"{run_id}.error_rate", run_id=run_id, decided_at=decided, concluded_at=concluded)


def decided(policy: Policy, evidence: Evidence, restraint: Restraint | None = None) -> Decision:
    decision = decide(policy.matrix, evidence, policy, restraint or Restraint(), NOW)
    assert decision is not None
    return decision


def test_clear_evidence_rolls_back_at_once(policy: Policy) -> None:
    """With every guard content, an immediate row ends in an immediate rollback bound to the run."""
    decision = decided(policy, CLEAR)
    assert (decision.verdict, decision.pace, decision.means) == (Verdict.ROLLBACK, Pace.IMMEDIATE, Means.UNDO)
    assert (decision.run_id, decision.id, decision.guards) == ("r1", "r1.error_rate", ())
    assert decision.budget == timedelta(minutes=5)


def test_the_reasons_say_what_was_measured_and_whether_the_time_is_enough(policy: Policy) -> None:
    """A rollback states the figure against the page's limit, the run, the way back and the arithmetic."""
    reasons = "\n".join(decided(policy, CLEAR).reasons)
    assert "8% against >5% since 08:10:00 UTC" in reasons
    assert "run r1 (0001_schema_v2) started at 08:00:00 UTC, 10m before the trouble" in reasons
    assert "about 1m: 40s of writing, 20s of other steps; within the runbook's 5m" in reasons


def test_an_undo_over_budget_is_said_and_done_all_the_same(policy: Policy) -> None:
    """Being late is no reason to leave the damage, but it is said."""
    slow = replace(CLEAR, restore=replace(RESTORE, undo_estimate=timedelta(minutes=9)))
    decision = decided(policy, slow)
    assert decision.verdict is Verdict.ROLLBACK
    assert any("OVER the runbook's 5m" in reason for reason in decision.reasons)


GUARD_TABLE = [
    pytest.param({"alerts": (matrix_alert(state=AlertState.RECOVERING),)}, {}, Guard.FADING, Verdict.NOTHING),
    pytest.param({"recovery": "rec-1"}, {}, Guard.RECOVERY_RUNNING, Verdict.NOTHING),
    pytest.param({}, {"rollbacks": (past("r1", MINUTE, took=None),)}, Guard.ROLLED_BACK, Verdict.NOTHING),
    pytest.param({"change": replace(CHANGE, state=ChangeState.UNDOING)}, {}, Guard.ROLLED_BACK, Verdict.NOTHING),
    pytest.param({}, {"rollbacks": (past("r1", HOUR),)}, Guard.ROLLED_BACK, Verdict.INCONCLUSIVE),
    pytest.param({"change": None}, {}, Guard.NO_CHANGE, Verdict.INCONCLUSIVE),
    pytest.param({"change": replace(CHANGE, rolls_back="r0")}, {}, Guard.IS_ROLLBACK, Verdict.INCONCLUSIVE),
    pytest.param({"alerts": (matrix_alert(blind="no_data"),)}, {}, Guard.BLIND, Verdict.INCONCLUSIVE),
    pytest.param({"alerts": (matrix_alert(since=START - MINUTE),)}, {}, Guard.BEFORE_CHANGE, Verdict.INCONCLUSIVE),
    pytest.param(
        {"change": replace(CHANGE, started_at=ONSET - HOUR, finished_at=ONSET - 31 * MINUTE)},
        {},
        Guard.AFTER_WINDOW,
        Verdict.INCONCLUSIVE,
    ),
    pytest.param({"operations": 99}, {}, Guard.LITTLE_TRAFFIC, Verdict.INCONCLUSIVE),
    pytest.param({"operations": None}, {}, Guard.LITTLE_TRAFFIC, Verdict.INCONCLUSIVE),
    pytest.param(
        {"alerts": (matrix_alert("performance_degradation", value=0.9),), "baseline": False},
        {},
        Guard.NO_BASELINE,
        Verdict.INCONCLUSIVE,
    ),
    pytest.param({"probe": Probe.DENIES}, {}, Guard.PROBE_DENIES, Verdict.INCONCLUSIVE),
    pytest.param({"probe": Probe.UNREACHABLE}, {}, Guard.UNREACHABLE, Verdict.INCONCLUSIVE),
    pytest.param(
        {"change": OLD_CHANGE, "restore": RestoreCertificate()}, {}, Guard.NO_RESTORE_POINT, Verdict.INCONCLUSIVE
    ),
    pytest.param(
        {"change": OLD_CHANGE, "restore": replace(NO_JOURNAL, backup_at=NOW)},
        {},
        Guard.NO_RESTORE_POINT,
        Verdict.INCONCLUSIVE,
    ),
    pytest.param({}, {"holds": (HOLD,)}, Guard.HELD, Verdict.HELD),
    pytest.param({}, {"aborts": (ABORT,)}, Guard.ABORTED, Verdict.HELD),
    pytest.param({"change": replace(CHANGE, disarmed="over the budget")}, {}, Guard.DISARMED, Verdict.HELD),
    pytest.param({}, {"rollbacks": (past("r0", 10 * MINUTE),)}, Guard.COOLDOWN, Verdict.HELD),
    pytest.param({}, {"rollbacks": tuple(past(f"q{n}", n * HOUR) for n in (3, 5, 7))}, Guard.DAILY_LIMIT, Verdict.HELD),
    pytest.param(
        {"change": OLD_CHANGE, "restore": replace(NO_JOURNAL, backup_at=NOW - 3 * HOUR)},
        {},
        Guard.APPROVAL,
        Verdict.NEEDS_APPROVAL,
    ),
]


@pytest.mark.parametrize(("evidence", "restraint", "guard", "verdict"), GUARD_TABLE)
def test_each_guard_stops_a_rollback_by_itself(
    policy: Policy, evidence: dict[str, object], restraint: dict[str, object], guard: Guard, verdict: Verdict
) -> None:
    """One thing wrong, one objection, its verdict and a sentence that says why."""
    decision = decided(policy, replace(CLEAR, **evidence), Restraint(**restraint))  # type: ignore[arg-type]
    assert (decision.verdict, decision.guards) == (verdict, (guard,))
    assert len(decision.reasons[0]) > 20


def test_the_table_has_a_row_for_every_guard() -> None:
    """A guard that is added without a test is noticed here."""
    assert {row.values[2] for row in GUARD_TABLE} == set(Guard)


def test_limits_that_are_just_met_do_not_stop_a_rollback(policy: Policy) -> None:
    """On the boundary: an onset at the very start, 100 operations, a rollback 15 minutes ago, a hold just expired."""
    evidence = replace(CLEAR, alerts=(matrix_alert(since=START),), operations=100)
    restraint = Restraint(
        rollbacks=(past("r0", 16 * MINUTE, took=MINUTE), past("r9", 25 * HOUR)),
        holds=(replace(HOLD, expires_at=NOW),),
    )
    assert decided(policy, evidence, restraint).verdict is Verdict.ROLLBACK


def test_a_finished_run_is_under_watch_for_half_an_hour(policy: Policy) -> None:
    """Trouble that begins 30 minutes after the end still counts as the run's."""
    change = replace(CHANGE, started_at=ONSET - HOUR, finished_at=ONSET - 30 * MINUTE, state=ChangeState.FINISHED)
    assert decided(policy, replace(CLEAR, change=change)).verdict is Verdict.ROLLBACK


def test_without_a_journal_the_history_of_the_database_is_read_within_the_hour(policy: Policy) -> None:
    """No journal, run younger than 55 minutes: before-images come from the pre-migration read_time, unapproved."""
    decision = decided(policy, replace(CLEAR, restore=NO_JOURNAL))
    assert (decision.verdict, decision.means) == (Verdict.ROLLBACK, Means.REREAD)


def test_a_full_restore_waits_for_the_manager_and_then_runs(policy: Policy) -> None:
    """No journal and too old to re-read: the page's Engineering Manager is asked by role; the approval frees it."""
    evidence = replace(CLEAR, change=OLD_CHANGE, restore=replace(NO_JOURNAL, backup_at=NOW - 3 * HOUR))
    waiting = decided(policy, evidence)
    assert waiting.verdict is Verdict.NEEDS_APPROVAL
    assert "Engineering Manager" in waiting.reasons[0]
    approved = decided(policy, evidence, Restraint(approvals=(APPROVAL,)))
    assert (approved.verdict, approved.means) == (Verdict.ROLLBACK, Means.RESTORE)
    expired = replace(APPROVAL, expires_at=NOW)
    assert decided(policy, evidence, Restraint(approvals=(expired,))).verdict is Verdict.NEEDS_APPROVAL


def test_a_journal_makes_approval_unnecessary_however_old_the_run(policy: Policy) -> None:
    """Waiting for an approval never disables an immediate undo."""
    assert decided(policy, replace(CLEAR, change=OLD_CHANGE)).verdict is Verdict.ROLLBACK


def test_fixing_forward_needs_no_leave_and_changes_nothing(policy: Policy) -> None:
    """A fix-forward row is told to people even while the automation is held and no run is known."""
    evidence = replace(CLEAR, alerts=(matrix_alert("missing_indexes"),), change=None)
    decision = decided(policy, evidence, Restraint(holds=(HOLD,)))
    assert (decision.verdict, decision.pace, decision.means) == (Verdict.FIX_FORWARD, None, None)
    note = note_of(decision)
    assert note is not None
    assert "fix forward within 15m" in note.text
    assert note.severity == "warning"


def test_the_most_severe_row_leads_and_the_others_are_covered(policy: Policy) -> None:
    """Corruption, errors and latency at once are one rollback, and missing indexes are still mentioned."""
    rows = ("performance_degradation", "missing_indexes", "error_rate", "data_corruption")
    evidence = replace(CLEAR, alerts=tuple(matrix_alert(row) for row in rows))
    decisions = decide_each(policy.matrix, evidence, policy, Restraint(), NOW)
    assert [(item.condition, item.verdict) for item in decisions] == [
        ("data_corruption", Verdict.ROLLBACK),
        ("error_rate", Verdict.NOTHING),
        ("performance_degradation", Verdict.NOTHING),
        ("missing_indexes", Verdict.FIX_FORWARD),
    ]


def test_an_unclear_severe_row_does_not_block_a_clear_lesser_one(policy: Policy) -> None:
    """Blind on corruption, sure about latency: the latency row acts, at its own pace."""
    evidence = replace(
        CLEAR, alerts=(matrix_alert("data_corruption", blind="no_data"), matrix_alert("performance_degradation"))
    )
    decision = decided(policy, evidence)
    assert (decision.condition, decision.verdict, decision.pace) == (
        "performance_degradation",
        Verdict.ROLLBACK,
        Pace.QUICK,
    )


def test_one_query_slow_before_the_run_does_not_excuse_another_slow_since(policy: Policy) -> None:
    """Of several alerts of one row, the one that incriminates the run decides."""
    old = matrix_alert("performance_degradation", since=START - HOUR, query="stats_calculation")
    new = matrix_alert("performance_degradation", query="user_lookup")
    assert decided(policy, replace(CLEAR, alerts=(old, new))).verdict is Verdict.ROLLBACK


def test_right_after_a_rollback_the_alert_is_given_time_to_settle(policy: Policy) -> None:
    """Within the row's budget after the end of a rollback a leftover alert is nothing; a new onset goes to people."""
    settled = Restraint(rollbacks=(PastRollback(decision_id="d", run_id="r1", decided_at=ONSET, concluded_at=NOW),))
    assert decided(policy, CLEAR, settled).verdict is Verdict.NOTHING
    earlier = Restraint(
        rollbacks=(
            PastRollback(decision_id="d", run_id="r1", decided_at=START, concluded_at=ONSET - timedelta(seconds=1)),
        )
    )
    again = decided(policy, CLEAR, earlier)
    assert again.verdict is Verdict.INCONCLUSIVE
    assert "the cause is something else" in again.reasons[0]


def test_nothing_fires_nothing_is_decided(policy: Policy) -> None:
    """Threshold alerts and pending matrix alerts are none of the matrix's business."""
    pending = matrix_alert(state=AlertState.PENDING)
    threshold = replace(matrix_alert(), labels={"severity": "critical", "metric": "error_rate"})
    evidence = replace(CLEAR, alerts=(pending, threshold))
    assert decide(policy.matrix, evidence, policy, Restraint(), NOW) is None


SPOILERS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "recovery": ({"recovery": "rec-1"}, {}),
    "rolled back": ({}, {"rollbacks": (past("r1", MINUTE, took=None),)}),
    "undone": ({"change": replace(CHANGE, state=ChangeState.UNDONE)}, {}),
    "no change": ({"change": None}, {}),
    "a rollback itself": ({"change": replace(CHANGE, rolls_back="r0")}, {}),
    "started later": ({"change": replace(CHANGE, started_at=ONSET + MINUTE)}, {}),
    "long ended": ({"change": replace(CHANGE, started_at=START - HOUR, finished_at=START - HOUR)}, {}),
    "little traffic": ({"operations": 3.0}, {}),
    "probe denies": ({"probe": Probe.DENIES}, {}),
    "unreachable": ({"probe": Probe.UNREACHABLE}, {}),
    "blind": ({"alerts": (matrix_alert(blind="error: timeout"),)}, {}),
    "fading": ({"alerts": (matrix_alert(state=AlertState.RECOVERING),)}, {}),
    "hold": ({}, {"holds": (HOLD,)}),
    "abort": ({}, {"aborts": (ABORT,)}),
    "cooldown": ({}, {"rollbacks": (past("r0", MINUTE),)}),
}


@given(chosen=st.sets(st.sampled_from(sorted(SPOILERS))), approved=st.booleans(), maintenance=st.booleans())
def test_no_combination_of_objections_ends_in_a_rollback(
    policy: Policy, chosen: set[str], approved: bool, maintenance: bool
) -> None:
    """A rollback is decided if and only if nothing at all speaks against it."""
    evidence: dict[str, object] = {"maintenance": maintenance}
    restraint: dict[str, object] = {"approvals": (APPROVAL,) if approved else ()}
    for name in sorted(chosen):
        spoiled, restrained = SPOILERS[name]
        evidence |= spoiled
        restraint |= restrained
    decision = decided(policy, replace(CLEAR, **evidence), Restraint(**restraint))  # type: ignore[arg-type]
    assert (decision.verdict is Verdict.ROLLBACK) == (not chosen)
    assert bool(decision.guards) == bool(chosen)
