"""How fast a run writes: one gate for all of its threads.

Before each batch a thread asks here. It waits while the run is paused or the database is in trouble, for its share of
the rate, and, where documents are created in a collection that was empty before, for the 500/50/5 rule: 500 writes a
second into a new collection, half as much more every five minutes. Excess is not an error in Firestore but latency,
for everybody.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.firestore.rate import NEW_COLLECTION, RateLimit
from agent.migration.governor import Governor, Standing

_NAP = 0.25  # seconds between two looks at whether a waiting run is to stop or to go on
_INSTANT = 0.001  # what is due sooner is due now: rounding would have a thread wait for ever


class Pace:
    """The gate.

    Args:
        governor: says how the run goes on.
        cancelled: a run that is to stop does not wait for its turn any more.
        is_new: whether a collection (its id) was empty before the run; asked once for each.
        ramp: what a new collection takes.
    """

    def __init__(
        self,
        governor: Governor,
        clock: Clock,
        cancelled: Callable[[], bool],
        *,
        is_new: Callable[[str], bool] = lambda _: False,
        ramp: RateLimit = NEW_COLLECTION,
    ) -> None:
        self._governor = governor
        self._clock = clock
        self._cancelled = cancelled
        self._is_new = is_new
        self._ramp = ramp
        self._lock = threading.Lock()
        self._bucket = _Bucket(clock.monotonic())
        self._new: dict[str, _Ramped | None] = {}
        self._standing = Standing()

    @property
    def batch_size(self) -> int | None:
        """Documents per chunk that somebody wants instead of the settings'."""
        return self._standing.batch_size

    @property
    def rate(self) -> float | None:
        """The ceiling that holds now, in documents/s."""
        return self._standing.rate

    def look(self) -> None:
        """Hear what is wanted, without writing; called when a run begins."""
        with self._lock:
            self._standing = self._governor.standing()

    def take(self, count: int) -> None:
        """Wait until ``count`` documents may be written. Those who come later wait for those who came first.

        Raises:
            Permanent: CANCELLED; UNHEALTHY if the load stays critical.
        """
        with self._lock:
            while (nap := self._nap()) > 0:
                self._clock.sleep(min(nap, _NAP))
            self._bucket.take(count)
            self._governor.written(count)

    def create(self, collections: Iterable[str]) -> None:
        """Wait until documents may be created: one for each collection id that is given.

        Raises:
            Permanent: CANCELLED.
        """
        for collection, count in Counter(collections).items():
            with self._lock:
                ramped = self._ramped(collection)
                while ramped is not None and (nap := ramped.nap(self._clock.monotonic())) > 0:
                    self._stop_if_asked()
                    self._clock.sleep(min(nap, _NAP))
                if ramped is not None:
                    ramped.bucket.take(count)

    def _ramped(self, collection: str) -> _Ramped | None:
        if collection not in self._new:
            began = self._clock.monotonic()
            self._new[collection] = _Ramped(self._ramp, began) if self._is_new(collection) else None
        return self._new[collection]

    def _nap(self) -> float:
        self._stop_if_asked()
        self._standing = self._governor.standing()
        if self._standing.waits:
            return _NAP
        return self._bucket.nap(self._standing.rate, self._clock.monotonic())

    def _stop_if_asked(self) -> None:
        if self._cancelled():
            raise Permanent(PermanentReason.CANCELLED, "the run was stopped while it waited for its turn to write")


class _Bucket:
    """A token bucket whose rate may change: up to a second's worth, and a taker may go into debt."""

    def __init__(self, now: float) -> None:
        self._last = now
        self._tokens = 0.0

    def nap(self, rate: float | None, now: float) -> float:
        """Seconds to wait at ``rate`` before the next take."""
        passed, self._last = now - self._last, now
        if rate is None:
            self._tokens = 0.0
            return 0.0
        self._tokens = min(rate, self._tokens + passed * rate)
        wait = -self._tokens / rate
        return wait if wait > _INSTANT else 0.0

    def take(self, count: int) -> None:
        self._tokens -= count


class _Ramped:
    """What one new collection takes: more in every period since its first document."""

    def __init__(self, limit: RateLimit, began: float) -> None:
        self._limit = limit
        self._began = began
        self.bucket = _Bucket(began)

    def nap(self, now: float) -> float:
        periods = int((now - self._began) / self._limit.every)
        return self.bucket.nap(self._limit.per_second * self._limit.growth**periods, now)


def ramp_seconds(documents: float, limit: RateLimit = NEW_COLLECTION) -> float:
    """How long creating ``documents`` in one new collection takes at least."""
    seconds, rate = 0.0, limit.per_second
    while limit.growth > 1 and documents > rate * limit.every:
        documents -= rate * limit.every
        seconds += limit.every
        rate *= limit.growth
    return seconds + documents / rate
