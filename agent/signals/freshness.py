"""How long ago each source of samples last delivered: blindness must be visible, or it passes for health."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from agent.clock import Clock
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import SIGNAL_AGE


class Freshness:
    """Remembers the last delivery of every source; feeds ``runbookd_signal_age_seconds``. Thread-safe."""

    def __init__(self, *, clock: Clock, telemetry: Telemetry) -> None:
        self._clock = clock
        self._delivered: dict[str, float] = {}
        self._patience: dict[str, float] = {}
        self._lock = threading.Lock()
        telemetry.observe(SIGNAL_AGE, self._observe)

    def expect(self, source: str, *, patience: float = 0.0) -> None:
        """From now on ``source`` owes samples; a source that never delivers ages from here.

        Args:
            patience: seconds of silence that are nothing unusual for this source.
        """
        with self._lock:
            self._delivered.setdefault(source, self._clock.monotonic())
            self._patience[source] = patience

    def delivered(self, source: str) -> None:
        with self._lock:
            self._delivered[source] = self._clock.monotonic()

    def ages(self) -> dict[str, float]:
        """Seconds since each source's last delivery."""
        now = self._clock.monotonic()
        with self._lock:
            return {source: max(now - at, 0.0) for source, at in self._delivered.items()}

    def overdue(self, limit: float) -> dict[str, float]:
        """Ages of the sources that have been silent for more than ``limit`` seconds and than their own patience."""
        ages = self.ages()
        with self._lock:
            return {source: age for source, age in ages.items() if age > max(limit, self._patience.get(source, 0.0))}

    def _observe(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        for source, age in self.ages().items():
            yield age, {"source": source}
