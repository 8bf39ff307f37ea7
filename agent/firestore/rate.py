"""How fast documents may be written.

Firestore asks that traffic to a new collection starts at 500 operations a second and grows by half every five
minutes; a migration may be told to leave room for users.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.clock import Clock


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """A ceiling, constant or growing.

    Args:
        per_second: writes a second at the start.
        growth: factor per ``every`` seconds; 1 keeps the ceiling constant.
        every: seconds.
    """

    per_second: float
    growth: float = 1.0
    every: float = 300.0


NEW_COLLECTION = RateLimit(per_second=500, growth=1.5, every=300.0)
"""The 500/50/5 rule."""


class TokenBucket:
    """Holds up to one second's worth; a taker may go into debt, and the next one waits for it.

    Debt instead of splitting: batches stay as large as they are and the average still holds.
    """

    def __init__(self, limit: RateLimit, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._began = self._last = clock.monotonic()
        self._tokens = 0.0

    def take(self, count: int) -> None:
        """Wait until ``count`` writes may go out."""
        rate = self._refill()
        if self._tokens < 0:
            self._clock.sleep(-self._tokens / rate)
            self._refill()
        self._tokens -= count

    def _refill(self) -> float:
        now = self._clock.monotonic()
        periods = int((now - self._began) / self._limit.every)
        rate = self._limit.per_second * self._limit.growth**periods
        self._tokens = min(rate, self._tokens + (now - self._last) * rate)
        self._last = now
        return rate
