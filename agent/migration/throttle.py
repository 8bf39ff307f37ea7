"""Slowing down before anybody is paged: from what is measured and what the page allows to a rate, and why. Pure.

The page's own figures are the limits, in the manner of gh-ost's ``max-load`` and ``critical-load``: from 80 % of a
warning on a run halves its rate every few seconds, below that it grows back; at a critical figure it stops writing at
once, looks again after longer than the windows of the page's rules are, and gives up if it is still critical. So it
does while a row of the decision matrix holds that would have it rolled back: rows have one figure, no warning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

SLOW_SHARE = 0.8
"""Of the page's warning: the run acts before the rule does, which then waits for a minute more."""

RECHECK_SECONDS = 40.0
"""Between the first and the second look at a critical figure: the page's rules look at windows of 30 s."""

_HALVE_EVERY = 5.0
_GROWTH = 1.25
_FLOOR = 10.0
_FLOOR_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Load:
    """How the database is doing; ``None`` is not known, which is neither good nor bad.

    Args:
        latency: p95 of queries, in seconds.
        errors: share of operations that fail.
        reversal: what is going to have the run rolled back unless it passes, in words; empty if nothing is.
    """

    latency: float | None = None
    errors: float | None = None
    reversal: str = ""


@dataclass(frozen=True, kw_only=True)
class Band:
    """A row of the page's key-metrics table, in base units."""

    warning: float
    critical: float


@dataclass(frozen=True, kw_only=True)
class LoadLimits:
    """The page's rows that a run minds; ``None`` where the page has none.

    Args:
        matrix: those of its decision matrix, too.
    """

    latency: Band | None = None
    errors: Band | None = None
    matrix: bool = False


class Action(StrEnum):
    """What a run does."""

    GO = "go"
    SLOW = "slow"
    HALT = "halt"
    GIVE_UP = "give_up"


@dataclass(frozen=True, kw_only=True)
class Throttle:
    """A ruling, and what the next one has to remember of it.

    Args:
        rate: documents/s, ``None``: no ceiling but those of others.
        reason: in words; empty for GO.
        usual: documents/s at which it went before it was slowed down.
        halved: when the rate was last halved, on the caller's monotonic clock.
        critical_since: when a critical figure was seen first.
    """

    action: Action = Action.GO
    rate: float | None = None
    reason: str = ""
    usual: float = 0.0
    halved: float | None = None
    critical_since: float | None = None


def throttle(before: Throttle, load: Load, limits: LoadLimits, *, rate: float, now: float) -> Throttle:
    """The next ruling.

    Args:
        rate: documents/s written since the last one.
        now: seconds of a monotonic clock.
    """
    critical = _over(load, limits, 1.0, critical=True)
    if critical:
        since = before.critical_since if before.critical_since is not None else now
        if now - since >= RECHECK_SECONDS:
            reason = f"{critical}, and was when it was looked at {now - since:.0f} s before"
            return replace(before, action=Action.GIVE_UP, reason=reason, critical_since=since)
        usual = max(before.usual, rate)
        return Throttle(action=Action.HALT, rate=before.rate, reason=critical, usual=usual, critical_since=since)
    if before.critical_since is not None and before.rate is None and before.usual:
        before = replace(before, rate=_floor(before.usual))  # what was critical is not tried again at full speed
    high = _over(load, limits, SLOW_SHARE, critical=False)
    if high:
        return _slower(before, high, rate, now)
    return _faster(before)


def _slower(before: Throttle, reason: str, rate: float, now: float) -> Throttle:
    usual = max(before.usual, rate)
    if before.halved is not None and before.rate is not None and now - before.halved < _HALVE_EVERY:
        return replace(before, action=Action.SLOW, reason=reason, critical_since=None)
    going = rate if before.rate is None else min(before.rate, rate or before.rate)
    return Throttle(action=Action.SLOW, rate=max(_floor(usual), going / 2), reason=reason, usual=usual, halved=now)


def _faster(before: Throttle) -> Throttle:
    if before.rate is None:
        return Throttle()
    rate = before.rate * _GROWTH
    if rate >= before.usual:
        return Throttle()
    return Throttle(action=Action.SLOW, rate=rate, reason="it grows back", usual=before.usual)


def _floor(usual: float) -> float:
    """Slow, but never still: a run that stands still is a stuck run."""
    return max(_FLOOR, usual * _FLOOR_SHARE)


def _over(load: Load, limits: LoadLimits, share: float, *, critical: bool) -> str:
    """What is at or over ``share`` of its limit, in words; empty if nothing is."""
    word = "critical figure" if critical else "warning"
    found = []
    if load.latency is not None and limits.latency is not None:
        limit = limits.latency.critical if critical else limits.latency.warning
        if load.latency >= limit * share:
            found.append(
                f"queries take {load.latency * 1000:,.0f} ms (p95); the page's {word} is {limit * 1000:,.0f} ms"
            )
    if load.errors is not None and limits.errors is not None:
        limit = limits.errors.critical if critical else limits.errors.warning
        if load.errors > 0 and load.errors >= limit * share:
            found.append(f"{load.errors:.1%} of operations fail; the page's {word} is {limit:.1%}")
    if critical and limits.matrix and load.reversal:
        found.append(f"{load.reversal}, for which the page's matrix rolls back")
    return "; ".join(found)
