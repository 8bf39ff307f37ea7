"""The state machine under any sequence of observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.alerting import AlertState, Observation, Patience, Sight, Timer, transition
from agent.alerting.states import GAP_INTERVALS

START = datetime(2026, 1, 1, tzinfo=UTC)
INTERVAL = timedelta(seconds=1)
ACTIVE = (AlertState.PENDING, AlertState.FIRING, AlertState.RECOVERING)

sights = st.sampled_from(list(Sight))
gaps = st.sampled_from([1.0, 1.0, 1.0, 1.01, 2.0, 3.0, 4.0, 60.0, 3600.0, -30.0])
timelines = st.lists(st.tuples(gaps, sights), max_size=60)
patiences = st.builds(
    lambda pending, keep: Patience(
        pending_for=timedelta(seconds=pending), keep_firing_for=timedelta(seconds=keep), interval=INTERVAL
    ),
    st.sampled_from([0, 1, 3, 5, 10]),
    st.sampled_from([0, 2, 5]),
)


@dataclass(frozen=True)
class Moment:
    now: datetime
    sight: Sight
    timer: Timer | None


def play(timeline: Sequence[tuple[float, Sight]], patience: Patience) -> list[Moment]:
    """Every observation with the timer after it."""
    now = START
    timer: Timer | None = None
    found = []
    for gap, sight in timeline:
        now += timedelta(seconds=gap)
        timer = transition(timer, Observation(sight=sight, value=1.0), now, patience).timer
        found.append(Moment(now, sight, timer))
    return found


@given(timelines, patiences)
def test_it_never_fires_before_the_condition_held_long_enough(
    timeline: list[tuple[float, Sight]], patience: Patience
) -> None:
    """Between the beginning and the firing, true was seen, false was not, and the time in sight covers `for`."""
    watched = timedelta(0)
    before: Moment | None = None
    last_seen: datetime | None = None
    for moment in play(timeline, patience):
        state = moment.timer.state if moment.timer else AlertState.INACTIVE
        fresh = before is None or before.timer is None or before.timer.state not in ACTIVE
        if moment.sight is Sight.TRUE:
            if fresh or last_seen is None:
                watched = timedelta(0)
            else:
                step = moment.now - last_seen
                in_sight = timedelta(0) <= step <= GAP_INTERVALS * INTERVAL
                watched += step if in_sight else max(timedelta(0), min(step, INTERVAL))
            if state is AlertState.FIRING and (
                fresh or (before and before.timer and before.timer.state is AlertState.PENDING)
            ):
                assert watched >= patience.pending_for
        if moment.sight in (Sight.TRUE, Sight.FALSE):
            last_seen = moment.now
        before = moment


@given(timelines, patiences)
def test_it_never_moves_for_want_of_data(timeline: list[tuple[float, Sight]], patience: Patience) -> None:
    """No data and errors leave a living alert as it is, to the last field."""
    before: Timer | None = None
    for moment in play(timeline, patience):
        if moment.sight in (Sight.NO_DATA, Sight.ERROR) and before is not None and before.state in ACTIVE:
            assert moment.timer == before
        before = moment.timer


@given(timelines, patiences)
def test_it_resolves_only_on_a_false_and_only_what_fired(
    timeline: list[tuple[float, Sight]], patience: Patience
) -> None:
    """A resolve has a cause that was seen, and an alert that was told."""
    before: Timer | None = None
    for moment in play(timeline, patience):
        if moment.timer is not None and moment.timer.state is AlertState.RESOLVED:
            assert moment.sight is Sight.FALSE
            assert before is not None
            assert before.state in (AlertState.FIRING, AlertState.RECOVERING)
            assert moment.timer.resolved_at == moment.now
            assert moment.timer.fired_at is not None
        before = moment.timer


@given(timelines, patiences)
def test_what_fires_keeps_its_beginning(timeline: list[tuple[float, Sight]], patience: Patience) -> None:
    """From firing to resolving the moment of firing stands."""
    before: Timer | None = None
    for moment in play(timeline, patience):
        timer = moment.timer
        if before is not None and timer is not None and before.fired_at and before.state in ACTIVE:
            assert timer.fired_at == before.fired_at
        before = timer


@given(st.lists(sights, max_size=40), patiences)
def test_without_gaps_it_is_prometheus(seen: list[Sight], patience: Patience) -> None:
    """With data at every interval, states follow `for` and keep_firing_for to the second."""
    seen = [Sight.TRUE if sight is Sight.TRUE else Sight.FALSE for sight in seen]
    since: int | None = None
    calm: int | None = None
    firing = False
    for second, moment in enumerate(play([(1.0, sight) for sight in seen], patience)):
        if moment.sight is Sight.TRUE:
            since = second if since is None else since
            calm = None
            firing = firing or timedelta(seconds=second - since) >= patience.pending_for
        else:
            calm = second if calm is None else calm
            if not firing or timedelta(seconds=second - calm) >= patience.keep_firing_for:
                firing, since = False, None
        told = moment.timer is not None and moment.timer.state in (AlertState.FIRING, AlertState.RECOVERING)
        assert told is firing


def test_an_hour_in_the_dark_counts_as_one_interval() -> None:
    """Pending for 3 of 5 s, an hour unseen, then true: 1 s is still to go."""
    patience = Patience(pending_for=timedelta(seconds=5), keep_firing_for=timedelta(0), interval=INTERVAL)
    moments = play([(1, Sight.TRUE)] * 4 + [(3600, Sight.TRUE), (1, Sight.TRUE)], patience)
    states = [moment.timer.state if moment.timer else None for moment in moments]
    assert states == [AlertState.PENDING] * 5 + [AlertState.FIRING]


def test_a_clock_that_steps_back_takes_nothing_away() -> None:
    """The time already waited is kept when the wall clock jumps."""
    patience = Patience(pending_for=timedelta(seconds=5), keep_firing_for=timedelta(0), interval=INTERVAL)
    moments = play([(1, Sight.TRUE)] * 4 + [(-3600, Sight.TRUE), (1, Sight.TRUE), (1, Sight.TRUE)], patience)
    states = [moment.timer.state if moment.timer else None for moment in moments]
    assert states == [AlertState.PENDING] * 6 + [AlertState.FIRING]


def test_a_new_observation_of_a_resolved_alert_is_a_new_alert() -> None:
    """It begins again, with a beginning of its own."""
    patience = Patience(pending_for=timedelta(0), keep_firing_for=timedelta(0), interval=INTERVAL)
    first, ended, again = play([(1, Sight.TRUE), (1, Sight.FALSE), (1, Sight.TRUE)], patience)
    assert first.timer is not None
    assert ended.timer is not None
    assert ended.timer == replace(first.timer, state=AlertState.RESOLVED, resolved_at=ended.now, seen_at=ended.now)
    assert again.timer is not None
    assert again.timer.fired_at == again.now
