"""Jumps of the wall clock: seen by comparing it with the monotonic one, before each pass over the rules.

Samples, timers and silences are kept in wall time, because people and files are. Put forward (NTP, a suspended
machine), the time that nobody looked is a gap, which the state machine leaves out of every timer. Put back, readings of
the future would keep every source from filing anything until the clock has caught up: an hour of blindness for an
hour's step. They are dropped.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from agent.clock import Clock
from agent.samples import SeriesStore
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import CLOCK_JUMPS

_log = logging.getLogger(__name__)

# NTP slews what is less; a reading or two may be late by it, and nothing else is.
JUMP = timedelta(seconds=2)


class JumpWatch:
    """Keeps the store usable over jumps of the clock; :meth:`look` before each pass."""

    def __init__(self, *, clock: Clock, store: SeriesStore, telemetry: Telemetry) -> None:
        self._clock = clock
        self._store = store
        self._telemetry = telemetry
        self._seen = (clock.now(), clock.monotonic())

    def look(self) -> timedelta:
        """How far the wall clock has jumped since the last look; nothing, if it went as the monotonic one did."""
        wall, monotonic = self._seen
        self._seen = now, here = self._clock.now(), self._clock.monotonic()
        jump = (now - wall) - timedelta(seconds=here - monotonic)
        if abs(jump) < JUMP:
            return timedelta(0)
        back = jump < timedelta(0)
        self._telemetry.add(CLOCK_JUMPS, 1, {"direction": "back" if back else "forward"})
        dropped = self._store.rewind(now.timestamp()) if back else 0
        _log.warning(
            "the wall clock was put %s", "back" if back else "forward",
            extra={"seconds": abs(jump).total_seconds(), "readings_dropped": dropped},
        )  # fmt: skip
        return jump
