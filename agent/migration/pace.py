"""How fast a run writes: one ceiling for all of its threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.firestore.rate import RateLimit, TokenBucket


class Pace:
    """A ceiling in documents per second, shared by threads.

    Args:
        per_second: ``None`` is no ceiling.
        cancelled: a run that is to stop does not wait for its turn any more.
    """

    def __init__(self, per_second: float | None, clock: Clock, cancelled: Callable[[], bool]) -> None:
        self._lock = threading.Lock()
        self._cancelled = cancelled
        self._bucket = TokenBucket(RateLimit(per_second=per_second), clock) if per_second else None

    def take(self, count: int) -> None:
        """Wait until ``count`` documents may be written. Those who come later wait for those who came first.

        Raises:
            Permanent: CANCELLED.
        """
        if self._bucket is None:
            return
        with self._lock:
            if not self._cancelled():
                self._bucket.take(count)
        if self._cancelled():
            raise Permanent(PermanentReason.CANCELLED, "the run was stopped while it waited for its turn to write")
