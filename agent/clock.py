"""Time as a dependency: every room that asks "when is it?" is handed a :class:`Clock`.

Wall time (``now``) is what people, files and Firestore read; monotonic time is what durations and deadlines are
measured with, because the wall clock jumps (NTP steps, suspended machines).
"""

from __future__ import annotations

import math
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of wall time, monotonic time and waiting."""

    def now(self) -> datetime:
        """Wall time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back; only differences mean anything."""

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` (nothing, if not positive)."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


class ManualClock:
    """A clock that moves only when told to: rule scripts, backtests and tests run on it."""

    def __init__(self, start: datetime | None = None) -> None:
        self._start = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._elapsed = 0.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        with self._lock:
            return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        with self._lock:
            return self._elapsed

    def sleep(self, seconds: float) -> None:
        self.advance(max(seconds, 0.0))

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by ``seconds``.

        Raises:
            ValueError: if ``seconds`` is negative; use :meth:`jump` for a wall clock that steps back.
        """
        if seconds < 0:
            raise ValueError("a monotonic clock never goes back")
        with self._lock:
            self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Step the wall clock alone, as NTP does."""
        with self._lock:
            self._start += timedelta(seconds=seconds)


def next_beat(now: float, interval: float, *, ahead: float = 0.0) -> float:
    """The next moment after ``now`` that is a multiple of ``interval``, less ``ahead``; seconds, monotonic.

    Loops that beat on multiples of their intervals keep step with each other without knowing of each other: a scrape
    that is a little ahead of the rules' look is seen by that look, not by the next.
    """
    beat = (math.floor((now + ahead) / interval) + 1) * interval - ahead
    return beat if beat > now else beat + interval


def rfc3339(moment: datetime) -> str:
    """``moment`` as RFC 3339 in UTC with a ``Z``, microseconds only where there are any."""
    text = moment.astimezone(UTC).isoformat()
    return text.replace("+00:00", "Z")
