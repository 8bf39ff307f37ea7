"""Queries stand aside while the rules are looked at.

Both need the interpreter's lock. Two dashboards' queries at full speed made a look of 4 ms of CPU take 200 ms on a busy
machine of two cores, because each of its many waits ends at the back of the queue. So a query asks here, as often as it
asks its budget, and waits while a look is under way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class RightOfWay:
    """Thread-safe; the engine keeps one.

    Args:
        patience: seconds that a query stands aside at most: a look that hangs must not take the queries with it.
    """

    def __init__(self, *, patience: float = 0.5) -> None:
        self._patience = patience
        self._free = threading.Event()
        self._free.set()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside the block, whoever calls :meth:`give` waits."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def give(self) -> None:
        """Return at once if the way is free, else when it is or the patience ends."""
        if not self._free.is_set():
            self._free.wait(self._patience)
