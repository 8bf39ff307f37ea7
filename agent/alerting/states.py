"""The alert state machine: pure, one alert, one observation at a time.

    INACTIVE --true--> PENDING --true for `for`--> FIRING --false--> RECOVERING --false for keep--> RESOLVED
                          |                           ^                  |
                          +--false--> INACTIVE        +-------true-------+

Two rules set it apart from Prometheus's. Want of data is no answer: an alert that is pending or firing stays so
until something was seen that says otherwise. And only time under observation counts: a gap (no data, a failed
query, a stopped daemon, a jump of the clock) neither brings an alert closer to firing nor closer to resolving.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from agent.alerting.alert import AlertState


class Sight(StrEnum):
    """What an evaluation says of one alert."""

    TRUE = "true"
    FALSE = "false"
    NO_DATA = "no_data"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """An evaluation's word on one alert; ``value`` is the expression's where it is true."""

    sight: Sight
    value: float = math.nan

    @property
    def definite(self) -> bool:
        return self.sight in (Sight.TRUE, Sight.FALSE)


@dataclass(frozen=True, kw_only=True)
class Timer:
    """Everything the machine knows of one alert.

    Args:
        active_since: when the condition became true, moved by the length of every gap since.
        calm_since: when the condition of a recovering alert became false, moved likewise.
        seen_at: the last definite observation.
        value: of the last true observation.
    """

    state: AlertState
    active_since: datetime
    seen_at: datetime
    value: float
    fired_at: datetime | None = None
    calm_since: datetime | None = None
    resolved_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a rule waits.

    Args:
        pending_for: the rule's ``for``.
        keep_firing_for: how long it fires on after its condition became false.
        interval: between observations; what lies more than ``GAP_INTERVALS`` of these apart has a gap between.
    """

    pending_for: timedelta
    keep_firing_for: timedelta
    interval: timedelta


GAP_INTERVALS = 3


class Reason(StrEnum):
    """Why a transition ended where it did."""

    NOTHING = "nothing to report"
    CONDITION_TRUE = "the condition became true"
    WAITING = "the condition is true, not yet for long enough"
    HELD = "the condition was true for as long as the rule demands"
    GONE_BEFORE_FIRING = "the condition became false before the alert fired"
    STILL_TRUE = "the condition is still true"
    KEEP_FIRING = "the condition is false, not yet for long enough"
    TRUE_AGAIN = "the condition became true again"
    CONDITION_FALSE = "the condition became false"
    CALM = "the condition was false for as long as the rule demands"
    BLIND = "no data, the state is kept"
    FAILED = "the evaluation failed, the state is kept"


@dataclass(frozen=True, kw_only=True)
class Transition:
    """The next timer, ``None`` where there is nothing to keep, and why."""

    timer: Timer | None
    reason: Reason


def transition(timer: Timer | None, observation: Observation, now: datetime, patience: Patience) -> Transition:
    """What becomes of an alert at ``now``."""
    if timer is None or timer.state in (AlertState.INACTIVE, AlertState.RESOLVED):
        if observation.sight is not Sight.TRUE:
            return Transition(timer=None, reason=Reason.NOTHING)
        return _started(observation, now, patience)
    if not observation.definite:
        return Transition(timer=timer, reason=Reason.BLIND if observation.sight is Sight.NO_DATA else Reason.FAILED)
    seen = replace(_without_gap(timer, now, patience.interval), seen_at=now)
    if observation.sight is Sight.TRUE:
        return _true(replace(seen, value=observation.value), now, patience)
    return _false(seen, now, patience)


def is_blind(seen_at: datetime, now: datetime, interval: timedelta) -> bool:
    """Whether the last definite observation is so long ago that people should know."""
    return now - seen_at >= GAP_INTERVALS * interval


def _started(observation: Observation, now: datetime, patience: Patience) -> Transition:
    timer = Timer(state=AlertState.PENDING, active_since=now, seen_at=now, value=observation.value)
    if patience.pending_for > timedelta(0):
        return Transition(timer=timer, reason=Reason.CONDITION_TRUE)
    return Transition(timer=replace(timer, state=AlertState.FIRING, fired_at=now), reason=Reason.CONDITION_TRUE)


def _true(timer: Timer, now: datetime, patience: Patience) -> Transition:
    if timer.state is AlertState.FIRING:
        return Transition(timer=timer, reason=Reason.STILL_TRUE)
    if timer.state is AlertState.RECOVERING:
        return Transition(timer=replace(timer, state=AlertState.FIRING, calm_since=None), reason=Reason.TRUE_AGAIN)
    if now - timer.active_since >= patience.pending_for:
        return Transition(timer=replace(timer, state=AlertState.FIRING, fired_at=now), reason=Reason.HELD)
    return Transition(timer=timer, reason=Reason.WAITING)


def _false(timer: Timer, now: datetime, patience: Patience) -> Transition:
    if timer.state is AlertState.PENDING:
        return Transition(timer=replace(timer, state=AlertState.INACTIVE), reason=Reason.GONE_BEFORE_FIRING)
    resolved = replace(timer, state=AlertState.RESOLVED, resolved_at=now)
    if timer.state is AlertState.FIRING:
        if patience.keep_firing_for == timedelta(0):
            return Transition(timer=resolved, reason=Reason.CONDITION_FALSE)
        return Transition(timer=replace(timer, state=AlertState.RECOVERING, calm_since=now), reason=Reason.KEEP_FIRING)
    calm_since = timer.calm_since or now
    if now - calm_since >= patience.keep_firing_for:
        return Transition(timer=resolved, reason=Reason.CALM)
    return Transition(timer=timer, reason=Reason.KEEP_FIRING)


def _without_gap(timer: Timer, now: datetime, interval: timedelta) -> Timer:
    """``timer`` with its clocks moved over the time that nobody was looking, forwards or backwards."""
    unseen = now - timer.seen_at
    if timedelta(0) <= unseen <= GAP_INTERVALS * interval:
        return timer
    moved = unseen - interval if unseen > timedelta(0) else unseen
    return replace(
        timer,
        active_since=timer.active_since + moved if timer.state is AlertState.PENDING else timer.active_since,
        calm_since=timer.calm_since + moved if timer.calm_since else None,
    )
