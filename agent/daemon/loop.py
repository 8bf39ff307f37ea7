"""The rule loop: look, judge, tell, decide, once a second, whatever else goes on.

Ticks are planned on fixed points of the monotonic clock, multiples of the interval, a moment after the scrapers' own. A
tick that is late starts at once; ticks that could not be held are counted as missed, not made up for, because an old
moment can't be looked at any more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agent.clock import Clock, next_beat
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import RULE_LAST_TICK, RULE_TICK_LAG, RULE_TICKS_MISSED

_log = logging.getLogger(__name__)


def planned(due: float, ended: float, interval: float) -> tuple[float, int]:
    """When the tick after the one that was due at ``due`` and ended at ``ended`` is due, and how many were missed.

    Args:
        due, ended: of the monotonic clock, seconds. That clock stands still while a machine is suspended, so what was
            slept through is not missed.
    """
    following = due + interval
    missed = max(0, int((ended - following) // interval))
    return following + missed * interval, missed


class Loop:
    """Calls ``tick`` every ``interval`` seconds in a thread of its own; an exception costs one tick, not the loop."""

    def __init__(self, tick: Callable[[], None], *, interval: float, clock: Clock, telemetry: Telemetry) -> None:
        self._tick = tick
        self._interval = interval
        self._clock = clock
        self._telemetry = telemetry
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.last_tick: float | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True, name="rules")
        self._thread.start()

    def stop(self) -> None:
        """End after the tick under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    @property
    def age(self) -> float | None:
        """Seconds since the last finished tick; ``None`` before the first."""
        return None if self.last_tick is None else self._clock.monotonic() - self.last_tick

    def _run(self) -> None:
        due = next_beat(self._clock.monotonic(), self._interval)
        while not self._stop.wait(max(due - self._clock.monotonic(), 0.0)):
            self._telemetry.record(RULE_TICK_LAG, max(self._clock.monotonic() - due, 0.0))
            try:
                self._tick()
            except Exception:  # noqa: BLE001 - the loop is what people rely on; the log and a metric tell of the bug
                _log.exception("a pass over the rules failed")
            self.last_tick = self._clock.monotonic()
            self._telemetry.set(RULE_LAST_TICK, self._clock.now().timestamp())
            due, missed = planned(due, self.last_tick, self._interval)
            if missed:
                self._telemetry.add(RULE_TICKS_MISSED, missed)
