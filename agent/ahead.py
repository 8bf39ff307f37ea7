"""Reading ahead: a thread of its own runs through an iterable while somebody else works on what came before.

For sources that keep their reader waiting (a server that prepares its answer) and for readers that keep their source
waiting. Called by migration and backup.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

_LOOK_S = 0.1
_JOIN_S = 1.0

T = TypeVar("T")


def _one(_: object) -> int:
    return 1


def _never() -> bool:
    return False


class Ahead(Generic[T]):
    """The items of an iterable, taken out of a bounded queue; begun when it is made. A context manager.

    Args:
        begin: makes the iterable, in the thread. It is closed there when nobody wants any more.
        most: weight that may wait to be taken; a single item may weigh more.
        weigh: what an item counts for; default is 1 each.
        shrink: makes an item lighter, at some cost; asked for those that come while more than ``loose`` waits.
    """

    def __init__(
        self,
        begin: Callable[[], Iterable[T]],
        *,
        most: int,
        weigh: Callable[[T], int] = _one,
        shrink: Callable[[T], T] | None = None,
        loose: int = 0,
    ) -> None:
        self._begin = begin
        self._most = most
        self._weigh = weigh
        self._shrink = shrink
        self._loose = loose
        self._changed = threading.Condition()
        self._waiting: deque[tuple[T, int]] = deque()
        self._held = 0
        self._ended = self._stopped = False
        self._failure: BaseException | None = None
        # Nothing that the process's end would wait for: its source may be a server that doesn't answer.
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)
        self._thread.start()

    def take(self, is_over: Callable[[], bool] = _never) -> T | None:
        """The next item; ``None`` at the end.

        Args:
            is_over: asked while there is nothing to take: nobody wants any more, which is an end, too.

        Raises:
            Exception: whatever the iterable raised, after the items before it.
        """
        with self._changed:
            while not self._waiting:
                if self._failure is not None:
                    raise self._failure
                if self._ended or is_over():
                    return None
                self._changed.wait(_LOOK_S)
            item, weight = self._waiting.popleft()
            self._held -= weight
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[T]:
        while (item := self.take()) is not None:
            yield item

    def widen(self, most: int) -> None:
        """From now on ``most`` may wait to be taken, if that is more than before."""
        with self._changed:
            self._most = max(self._most, most)
            self._changed.notify_all()

    def stop(self) -> None:
        """Nobody takes any more; returns at once."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """:meth:`stop`, and wait a moment for the thread; it may be held up by its source."""
        self.stop()
        self._thread.join(_JOIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        try:
            items = iter(self._begin())
            try:
                for item in items:
                    if not self._offer(item):
                        return
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever takes the items
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _offer(self, item: T) -> bool:
        """Wait for room and put ``item`` there; false if nobody wants it any more."""
        if self._shrink is not None and self._held > self._loose:
            item = self._shrink(item)
        weight = self._weigh(item)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._waiting or self._held + weight <= self._most)
            if self._stopped:
                return False
            self._waiting.append((item, weight))
            self._held += weight
            self._changed.notify_all()
            return True
