"""Patience: how often, how long, and when it ends."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import ManualClock
from agent.faults import Permanent, PermanentReason, Transient, TransientReason
from agent.firestore.retry import Retrying, RetryPolicy

_POLICY = RetryPolicy(first=1.0, factor=2.0, ceiling=8.0, budget=60.0)


def _failing(times: int, clock: ManualClock, seen: list[float]) -> Callable[[], str]:
    def attempt() -> str:
        seen.append(clock.monotonic())
        if len(seen) <= times:
            raise Transient(TransientReason.UNAVAILABLE, "away")
        return "done"

    return attempt


def test_pauses_double_up_to_the_ceiling() -> None:
    """With the largest draw the pauses are 1, 2, 4, 8, 8 seconds."""
    clock, seen = ManualClock(), list[float]()
    attempt = _failing(5, clock, seen)
    assert Retrying(_POLICY, clock=clock, draw=lambda: 1.0).call(attempt) == "done"
    assert seen == [0, 1, 3, 7, 15, 23]


def test_the_dice_are_its_own() -> None:
    """A thread that waits for a server leaves the module's generator to whoever has seeded it."""
    clock = ManualClock()
    before = random.getstate()
    assert Retrying(_POLICY, clock=clock).call(_failing(5, clock, [])) == "done"
    assert clock.monotonic() > 0
    assert random.getstate() == before


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=200, max_size=200))
def test_no_attempt_begins_after_the_budget(draws: list[float]) -> None:
    """Whatever the dice say, the last failure comes out within the budget."""
    clock, seen = ManualClock(), list[float]()
    dice = iter(draws)
    attempt = _failing(10_000, clock, seen)
    with pytest.raises(Transient):
        Retrying(_POLICY, clock=clock, draw=lambda: next(dice, 1.0)).call(attempt)
    assert seen[-1] < _POLICY.budget


def test_what_retrying_cannot_cure_is_raised_at_once() -> None:
    """No second attempt, no pause."""
    clock = ManualClock()
    calls = []

    def attempt() -> None:
        calls.append(1)
        raise Permanent(PermanentReason.INVALID, "never")

    with pytest.raises(Permanent):
        Retrying(_POLICY, clock=clock).call(attempt)
    assert (len(calls), clock.monotonic()) == (1, 0)


def test_progress_renews_patience() -> None:
    """A long scan may stumble every now and then for longer than one budget in sum."""
    clock = ManualClock()
    patience = Retrying(_POLICY, clock=clock, draw=lambda: 0.9).patience()
    error = Transient(TransientReason.UNAVAILABLE, "away")
    for _ in range(100):
        patience.pause(error)
        patience.renew()
    assert clock.monotonic() > _POLICY.budget


def test_failures_that_are_followed_by_another_attempt_are_told() -> None:
    """The counter of retries counts these."""
    clock, seen, told = ManualClock(), list[float](), list[str]()
    Retrying(_POLICY, clock=clock, draw=lambda: 0.5).call(
        _failing(2, clock, seen),
        on_failure=lambda error: told.append(str(error.reason)),
    )
    assert told == ["unavailable", "unavailable"]
