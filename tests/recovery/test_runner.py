"""The recovery saga: in the page's order, inside its budgets, and never half-open."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agent.faults import Permanent, PermanentReason, Refused, RefusedReason, Transient, TransientReason
from agent.recovery import RecoveryState, StepState
from tests.recovery.world import Bench, Killed, later

SEQUENCE = [
    "stop_change",
    "maintenance_on",
    "choose_backup",
    "restore_data",
    "clear_caches",
    "maintenance_off",
    "check_health",
]


def _passing() -> Transient:
    return Transient(TransientReason.UNAVAILABLE, "try again")


def test_the_steps_are_the_pages_in_the_pages_order(bench: Bench) -> None:
    """The saga does what the emergency sequence says, after stopping the migration that still writes."""
    recovery = bench.runner.run(bench.begin())
    assert bench.world.done == SEQUENCE
    assert recovery.state is RecoveryState.DONE
    assert recovery.counts == {"documents": 100, "kept": 2}
    assert not bench.world.maintenance
    assert [step.budget for step in recovery.steps] == [None, 30, 30, 180, 30, 30, 30]
    assert all(step.state is StepState.DONE and step.seconds == 1.0 for step in recovery.steps)
    assert not recovery.over_budget


def test_a_passing_failure_is_tried_again(bench: Bench) -> None:
    """Three UNAVAILABLEs in a row don't end a rollback."""
    bench.world.failures["restore_data"] = [_passing(), _passing(), _passing()]
    recovery = bench.runner.run(bench.begin())
    assert recovery.state is RecoveryState.DONE
    assert recovery.step("restore_data").attempts == 4


@pytest.mark.parametrize("step", SEQUENCE[1:5])
def test_a_step_that_fails_for_good_leaves_the_door_closed(bench: Bench, step: str) -> None:
    """Past its retries, maintenance mode is on, the recovery is stuck and the listener hears of it."""
    bench.world.failures[step] = [Permanent(PermanentReason.CORRUPT, "no way")] * 9
    recovery = bench.runner.run(bench.begin())
    assert recovery.state is RecoveryState.STUCK
    assert "no way" in recovery.problem
    assert bench.events[-1][0].state is RecoveryState.STUCK
    if step != "maintenance_on":
        assert bench.world.maintenance


def test_an_unhealthy_end_closes_the_door_again(bench: Bench) -> None:
    """Traffic was let in, the application isn't well: maintenance mode goes back on and people are told."""
    bench.world.failures["check_health"] = [_passing()] * 1000
    bench.world.seconds["check_health"] = 0.1
    recovery = bench.runner.run(bench.begin())
    assert recovery.state is RecoveryState.STUCK
    assert bench.world.maintenance
    assert recovery.step("check_health").seconds == pytest.approx(30, abs=2)


def test_health_may_take_a_moment(bench: Bench) -> None:
    """The first answers after traffic returns may be no; within the step's budget a yes counts."""
    bench.world.failures["check_health"] = [_passing()] * 5
    assert bench.runner.run(bench.begin()).state is RecoveryState.DONE


@pytest.mark.parametrize("moment", range(len(SEQUENCE)))
def test_kill_in_any_step_then_restart_completes_it(bench: Bench, moment: int) -> None:
    """Whatever step kill -9 hits, a new process carries on from there and repeats no finished step."""
    step = SEQUENCE[moment]
    bench.world.failures[step] = [Killed()]
    with pytest.raises(Killed):
        bench.runner.run(bench.begin())
    bench.restart()
    recovery = bench.runner.resume()
    assert recovery is not None
    assert recovery.state is RecoveryState.DONE
    assert bench.world.done == SEQUENCE
    assert not bench.world.maintenance


def test_killed_between_begin_and_run(bench: Bench) -> None:
    """A recovery that was only written down is carried out after the restart."""
    bench.begin()
    bench.restart()
    recovery = bench.runner.resume()
    assert recovery is not None
    assert recovery.state is RecoveryState.DONE


def test_nothing_to_resume(bench: Bench) -> None:
    """After a clean end there is nothing left to do."""
    bench.runner.run(bench.begin())
    bench.restart()
    assert bench.runner.resume() is None


def test_the_same_decision_never_starts_twice(bench: Bench) -> None:
    """A decision replayed after a crash finds its recovery and changes nothing."""
    first = bench.runner.run(bench.begin())
    assert bench.begin() == first
    assert bench.world.done == SEQUENCE


def test_one_recovery_at_a_time(bench: Bench) -> None:
    """A second decision while one is being carried out is refused."""
    bench.begin()
    with pytest.raises(Refused) as caught:
        bench.runner.begin(decision_id="other", run_id="run-2", condition="error_rate", budget=timedelta(minutes=5))
    assert caught.value.reason is RefusedReason.ALREADY_RUNNING


def test_budgets_are_judged_step_by_step_and_as_a_whole(bench: Bench) -> None:
    """A step that took longer than its line on the page says so, and so does the whole."""
    bench.world.seconds = {"restore_data": 200.0, "clear_caches": 120.0}
    recovery = bench.runner.run(bench.begin())
    assert recovery.step("restore_data").over_budget
    assert recovery.step("clear_caches").over_budget
    assert not recovery.step("maintenance_on").over_budget
    assert recovery.over_budget


def test_a_bug_in_a_step_ends_in_maintenance_mode(bench: Bench) -> None:
    """An exception nobody foresaw is treated like a failed step."""
    bench.world.failures["clear_caches"] = later(ZeroDivisionError("bug"), after=0)
    recovery = bench.runner.run(bench.begin())
    assert recovery.state is RecoveryState.STUCK
    assert bench.world.maintenance


def test_a_person_may_stop_it_between_steps(bench: Bench) -> None:
    """A hold is honoured in the middle: nothing more is done, maintenance mode stays, it can go on later."""
    bench.stop = "held by the engineering manager: let me look"
    recovery = bench.runner.run(bench.begin())
    assert recovery.state is RecoveryState.STUCK
    assert "let me look" in recovery.problem
    assert bench.world.done[-1] == "restore_data"
    assert bench.world.maintenance
    bench.stop = ""
    assert bench.runner.retry(recovery).state is RecoveryState.DONE
    assert bench.world.done == SEQUENCE


def test_a_stop_of_the_daemon_is_no_failure(bench: Bench) -> None:
    """SIGTERM stops the undo's worker at a safe point: nobody is called, and the next start completes the recovery."""
    bench.world.failures["restore_data"] = [Permanent(PermanentReason.CANCELLED, "stopped at a batch boundary")]
    recovery = bench.runner.run(bench.begin())
    assert recovery.state is RecoveryState.RUNNING
    assert bench.world.maintenance
    bench.restart()
    done = bench.runner.resume()
    assert done is not None
    assert done.state is RecoveryState.DONE
    assert bench.world.done == SEQUENCE
