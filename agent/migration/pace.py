"""How fast a run writes: one ceiling for all of its threads."""

from __future__ import annotations

import threading

from agent.clock import Clock
from agent.firestore.rate import RateLimit, TokenBucket


class Pace:
    """A ceiling in documents per second, shared by threads.

    Args:
        per_second: ``None`` is no ceiling.
    """

    def __init__(self, per_second: float | None, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._bucket = TokenBucket(RateLimit(per_second=per_second), clock) if per_second else None

    def take(self, count: int) -> None:
        """Wait until ``count`` documents may be written. Those who come later wait for those who came first."""
        if self._bucket is not None:
            with self._lock:
                self._bucket.take(count)
