"""Figures, durations and moments as a tired person reads them: short, with units, rounded once.

Called wherever reasons and notices are put into words.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.runbook import Unit


def duration(span: timedelta) -> str:
    """``span`` in its two largest units: ``850ms``, ``42s``, ``3m12s``, ``1h05m``, ``2d3h``; negative as zero."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 1:
        return f"{round(seconds * 1000)}ms" if seconds else "0s"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s" if rest else f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m" if minutes else f"{hours}h"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h" if hours else f"{days}d"


def moment(when: datetime) -> str:
    """``when`` as the time of day in UTC, ``08:12:05 UTC``."""
    return when.astimezone(UTC).strftime("%H:%M:%S UTC")


def figure(value: float, unit: Unit) -> str:
    """``value`` (base units) as the runbook writes such a value: ``8.2%``, ``640ms``, ``1,250/s``."""
    match unit:
        case Unit.RATIO:
            return f"{_rounded(value * 100)}%"
        case Unit.SECONDS:
            return duration(timedelta(seconds=value))
        case Unit.PER_SECOND:
            return f"{_rounded(value)}/s"
        case _:
            return _rounded(value)


def blindness(blind: str) -> str:
    """An alert's ``blind`` mark in words."""
    kind, _, reason = blind.partition(": ")
    return f"{kind.replace('_', ' ')}: {reason}" if reason else kind.replace("_", " ")


def _rounded(value: float) -> str:
    """Two or three significant digits below 100, whole numbers above."""
    if abs(value) >= 100 or value == int(value):
        return f"{round(value):,}"
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.1f}"
