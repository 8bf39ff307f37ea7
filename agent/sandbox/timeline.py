"""The database's time: strictly increasing commit times, and read times nothing can be committed before.

A read at T has to see every commit up to T and none that gets a time up to T later. So every T handed to a reader
moves the next commit time past it, and a reader whose T lies after a commit under way waits for that commit.
Called by the store.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from agent.clock import Clock
from agent.sandbox.status import failed_precondition, invalid

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Timeline:
    """Hands out times in microseconds since the epoch.

    Args:
        clock: the wall clock; if it steps back, times go on one microsecond at a time until it catches up.
        last: the newest time the stored data carries.
        window: how far back a read may ask to look.
    """

    def __init__(self, *, clock: Clock, last: int, window: timedelta) -> None:
        self._clock = clock
        self._issued = last
        self._committing: int | None = None
        self._window = window // _MICROSECOND
        self._changed = threading.Condition()

    def _now(self) -> int:
        return (self._clock.now() - _EPOCH) // _MICROSECOND

    def begin_commit(self) -> int:
        """The time of the commit that starts now; one at a time, ended with :meth:`end_commit`."""
        with self._changed:
            self._issued = self._committing = max(self._now(), self._issued + 1)
            return self._committing

    def end_commit(self) -> None:
        """The commit under way is visible to new readers, or was given up."""
        with self._changed:
            self._committing = None
            self._changed.notify_all()

    def read_point(self) -> int:
        """The newest time at which the database's state is settled."""
        with self._changed:
            if self._committing is not None:
                return self._committing - 1
            self._issued = max(self._now(), self._issued)
            return self._issued

    def settle(self, moment: int) -> None:
        """Make sure that the state at ``moment`` can't change any more.

        Raises:
            StatusError: INVALID_ARGUMENT if it is in the future, FAILED_PRECONDITION if it is out of the window.
        """
        with self._changed:
            now = max(self._now(), self._issued)
            if moment > now:
                raise invalid("The requested 'read_time' cannot be in the future.")
            if moment < now - self._window:
                raise failed_precondition("The requested 'read_time' is too old.")
            self._issued = max(self._issued, moment)
            while self._committing is not None and self._committing <= moment:
                self._changed.wait()

    def horizon(self) -> int:
        """The oldest time a read may ask for; what ended before it can be forgotten."""
        return self._now() - self._window
