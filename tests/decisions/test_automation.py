"""Decisions over time: what is written down before it has an effect, and what people say to the automation."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent.clock import ManualClock
from agent.decisions import Decisions, Evidence, Limits, Outcome, Probe, Verdict
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason
from agent.runbook import Policy
from agent.state import StateFile
from agent.telemetry import quiet_telemetry
from tests.decisions.scene import CHANGE, CLEAR, NOW, RESTORE, matrix_alert

HOUR = timedelta(hours=1)
NEEDS_RESTORE = replace(
    CLEAR,
    change=replace(CHANGE, started_at=NOW - 2 * HOUR),
    restore=replace(RESTORE, journal=False, backup_at=NOW - 3 * HOUR),
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def decisions(policy: Policy, state: StateFile, clock: ManualClock) -> Decisions:
    return Decisions(policy=policy, state=state, clock=clock, telemetry=quiet_telemetry())


def reopened(policy: Policy, state: StateFile, clock: ManualClock) -> Decisions:
    """The same state file in another process: after ``kill -9``, or in the command line."""
    return Decisions(policy=policy, state=StateFile(state.path), clock=clock, telemetry=quiet_telemetry())


def verdicts(decisions: Decisions, evidence: Evidence) -> list[Verdict]:
    return [decision.verdict for decision in decisions.consider(evidence)]


def test_a_rollback_is_decided_once_however_often_the_alert_is_seen(decisions: Decisions, clock: ManualClock) -> None:
    """Pass after pass with the same alert firing yields one decision."""
    assert verdicts(decisions, CLEAR) == [Verdict.ROLLBACK]
    for _ in range(5):
        clock.advance(1)
        assert verdicts(decisions, CLEAR) == []


def test_a_run_is_never_rolled_back_for_a_second_condition(decisions: Decisions, clock: ManualClock) -> None:
    """After errors have rolled a run back, corruption on the same run goes to a person at most."""
    [decision] = decisions.consider(CLEAR)
    decisions.conclude(decision.id, Outcome.DONE)
    clock.advance(3600)
    later = matrix_alert("data_corruption", since=clock.now())
    assert verdicts(decisions, replace(CLEAR, alerts=(later,))) == [Verdict.INCONCLUSIVE]


def test_killed_between_decision_and_effect_the_rollback_is_outstanding(
    policy: Policy, state: StateFile, decisions: Decisions, clock: ManualClock
) -> None:
    """A decision on disk whose recovery never began is handed out again whole, and not decided anew."""
    [decision] = decisions.consider(CLEAR)
    after_crash = reopened(policy, state, clock)
    assert after_crash.outstanding() == (decision,)
    assert verdicts(after_crash, CLEAR) == []
    after_crash.conclude(decision.id, Outcome.DONE)
    assert after_crash.outstanding() == ()
    assert after_crash.journal.find(decision.id).outcome is Outcome.DONE


def test_killed_before_the_decision_was_written_it_is_taken_anew(
    policy: Policy, state: StateFile, clock: ManualClock
) -> None:
    """A transaction that didn't commit leaves no trace: the next process decides as if for the first time."""
    dying = Decisions(policy=policy, state=state, clock=clock, telemetry=quiet_telemetry())
    with pytest.raises(KeyboardInterrupt), state.transaction():
        dying.consider(CLEAR)
        raise KeyboardInterrupt
    assert verdicts(reopened(policy, state, clock), CLEAR) == [Verdict.ROLLBACK]


def test_the_journal_keeps_the_evidence(decisions: Decisions) -> None:
    """What was known is read back with the decision, to the last figure."""
    [decision] = decisions.consider(CLEAR)
    kept = decisions.journal.find(decision.id).decision
    assert kept == decision
    assert kept.evidence == CLEAR.snapshot()


def test_a_verdict_that_wavers_is_told_once_each_way(decisions: Decisions, clock: ManualClock) -> None:
    """Too little traffic, then a contradicting probe, in turns: two notes, not one a second."""
    quiet, contradicted = replace(CLEAR, operations=5), replace(CLEAR, probe=Probe.DENIES)
    assert len(decisions.consider(quiet)) == 1
    assert len(decisions.consider(contradicted)) == 1
    for _ in range(3):
        clock.advance(1)
        assert decisions.consider(quiet) == ()
        assert decisions.consider(contradicted) == ()


def test_enough_traffic_turns_an_unclear_case_into_a_rollback(decisions: Decisions, clock: ManualClock) -> None:
    """The guard that objected falls away: the same (run, condition) is decided after all."""
    assert verdicts(decisions, replace(CLEAR, operations=40)) == [Verdict.INCONCLUSIVE]
    clock.advance(5)
    assert verdicts(decisions, CLEAR) == [Verdict.ROLLBACK]


def test_a_hold_placed_by_the_command_line_stops_the_daemon_and_its_release_frees_it(
    policy: Policy, state: StateFile, decisions: Decisions, clock: ManualClock
) -> None:
    """At 0s ana holds for 1h; at 1s the alert is HELD; at 60s she releases; at 61s the rollback is decided."""
    command_line = reopened(policy, state, clock)
    command_line.hold(owner="ana", reason="watching it myself", lasting=HOUR)
    clock.advance(1)
    [held] = decisions.consider(CLEAR)
    assert held.verdict is Verdict.HELD
    assert "ana holds the automation until 09:10:20 UTC: watching it myself" in held.reasons[0]
    assert decisions.stop_requested("r1") == "held by ana: watching it myself"
    clock.advance(59)
    assert [hold.owner for hold in command_line.release(owner="ana")] == ["ana"]
    clock.advance(1)
    assert verdicts(decisions, CLEAR) == [Verdict.ROLLBACK]
    assert decisions.stop_requested("r1") == ""


def test_a_hold_that_runs_out_is_announced_once(
    policy: Policy, state: StateFile, decisions: Decisions, clock: ManualClock
) -> None:
    """An override expires aloud, also when the daemon was restarted meanwhile."""
    decisions.hold(owner="ana", reason="lunch", lasting=timedelta(minutes=30))
    assert decisions.expired_holds() == ()
    clock.advance(1801)
    assert decisions.status().hold is None
    after_restart = reopened(policy, state, clock)
    assert [hold.reason for hold in after_restart.expired_holds()] == ["lunch"]
    assert after_restart.expired_holds() == ()
    assert verdicts(after_restart, CLEAR) == [Verdict.ROLLBACK]


def test_an_override_without_owner_reason_or_end_is_refused(decisions: Decisions) -> None:
    """Nobody answers for an anonymous hold, and nobody remembers an endless one."""
    for owner, reason, lasting in (("", "x", HOUR), ("ana", " ", HOUR), ("ana", "x", timedelta())):
        with pytest.raises(Refused) as refused:
            decisions.hold(owner=owner, reason=reason, lasting=lasting)
        assert refused.value.reason is RefusedReason.NOT_CONFIRMED


def test_an_approval_frees_a_full_restore(decisions: Decisions, clock: ManualClock) -> None:
    """At 0s approval is needed and shown as waiting; at 30s mei approves; at 31s the restore is decided."""
    [waiting] = decisions.consider(NEEDS_RESTORE)
    assert decisions.status().waiting == (waiting,)
    assert decisions.status().approver == "Engineering Manager"
    clock.advance(30)
    decisions.approve(waiting.id, owner="mei")
    clock.advance(1)
    [decision] = decisions.consider(NEEDS_RESTORE)
    assert decision.verdict is Verdict.ROLLBACK
    assert any("approved by mei" in reason for reason in decision.reasons)
    assert decisions.status().waiting == ()


def test_waiting_for_an_approval_does_not_block_an_undo(decisions: Decisions) -> None:
    """While a full restore waits, the journal turns up: the undo is decided without anybody's word."""
    assert verdicts(decisions, NEEDS_RESTORE) == [Verdict.NEEDS_APPROVAL]
    assert verdicts(decisions, replace(NEEDS_RESTORE, restore=RESTORE)) == [Verdict.ROLLBACK]


def test_an_aborted_run_stays_in_peoples_hands(
    policy: Policy, state: StateFile, decisions: Decisions, clock: ManualClock
) -> None:
    """Abort reaches a rollback under way and outlives a restart; another run is not touched by it."""
    [decision] = decisions.consider(CLEAR)
    decisions.abort(decision.id, owner="mei", reason="restoring by hand")
    after_restart = reopened(policy, state, clock)
    assert after_restart.stop_requested("r1") == "aborted by mei: restoring by hand"
    assert after_restart.stop_requested("r2") == ""


def test_only_what_waits_can_be_approved(decisions: Decisions) -> None:
    """An unknown id and a decision that doesn't wait are told apart."""
    with pytest.raises(Permanent) as unknown:
        decisions.approve("nope", owner="mei")
    assert unknown.value.reason is PermanentReason.NOT_FOUND
    [decision] = decisions.consider(CLEAR)
    with pytest.raises(Permanent) as settled:
        decisions.approve(decision.id, owner="mei")
    assert settled.value.reason is PermanentReason.CONFLICT


def test_cooldown_and_daily_limit_are_counted_on_disk(policy: Policy, state: StateFile, clock: ManualClock) -> None:
    """Three runs fail in a day: the second waits for the cooldown, the fourth for tomorrow, restarts regardless."""
    limits = Limits(daily_limit=3)
    outcomes: list[list[Verdict]] = []
    for number in range(4):
        decisions = Decisions(
            policy=policy, state=StateFile(state.path), clock=clock, telemetry=quiet_telemetry(), limits=limits
        )
        change = replace(CHANGE, run_id=f"run-{number}", started_at=clock.now())
        alert = matrix_alert(since=clock.now())
        evidence = replace(CLEAR, change=change, alerts=(alert,))
        first = verdicts(decisions, evidence)
        clock.advance(16 * 60)
        outcomes.append(first + verdicts(decisions, evidence))
        for decision in decisions.outstanding():
            decisions.conclude(decision.id, Outcome.DONE)
    assert outcomes == [
        [Verdict.ROLLBACK],
        [Verdict.HELD, Verdict.ROLLBACK],
        [Verdict.HELD, Verdict.ROLLBACK],
        [Verdict.HELD, Verdict.HELD],
    ]
    clock.advance(24 * 3600)
    tomorrow = replace(
        CLEAR,
        change=replace(CHANGE, run_id="run-5", started_at=clock.now()),
        alerts=(matrix_alert(since=clock.now()),),
    )
    assert verdicts(decisions, tomorrow) == [Verdict.ROLLBACK]


def test_the_state_file_is_only_written_when_something_is_new(decisions: Decisions, state: StateFile) -> None:
    """A pass without matrix alerts, or with nothing new, leaves the file alone: it happens every second."""
    decisions.consider(CLEAR)
    before = Path(f"{state.path}-wal").stat().st_size
    decisions.consider(replace(CLEAR, alerts=()))
    decisions.consider(CLEAR)
    assert Path(f"{state.path}-wal").stat().st_size == before
