"""What a migration reads: collections at a pinned read_time, ahead of the threads that write.

A server prepares a large result before the first document comes: Google's emulator takes 2.5 s for 76,000 documents,
on one core, while nothing could be written. So a run reads on, some megabytes ahead and into the next collection, while
the documents before are still being written. Writing keeps the collections' order. A document that somebody writes in
between is found out by its precondition, as ever.

Called by run, dry run and validation.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.firestore import CollectionGroup, RawDocument
from agent.migration.database import Database
from agent.migration.journal import ScanRange

AHEAD_BYTES = 16_000_000
"""What a run holds of documents that nobody works on yet; 16 s at the ceiling of 900 documents of 1 KB a second."""
_PAGE, _PAGE_BYTES = 300, 1_000_000
_LOOK_S = 0.1
_JOIN_S = 1.0


def scan(
    database: Database, scan_range: ScanRange, *, after: str, repin_after: timedelta, clock: Clock
) -> Iterator[RawDocument]:
    """The documents of a range behind ``after`` (a full name, or empty), in name order, each once.

    Pinned to one read_time as long as that stays readable: a scan that outlives it goes on behind its last document
    at a new one.
    """
    address = database.address
    while True:
        first = after or scan_range.after
        scope = CollectionGroup(
            id=scan_range.collection,
            first=address.relative(first) if first else "",
            last=address.relative(scan_range.until) if scan_range.until else "",
        )
        pinned = clock.monotonic()
        try:
            for raw in database.documents(scope, database.server_time()):
                if raw.name == first:
                    continue
                yield raw
                after = raw.name
                if clock.monotonic() - pinned > repin_after.total_seconds():
                    break
            else:
                return
        except Permanent as error:
            # A machine that was asleep: its monotonic clock stood still and the hour went by.
            if error.reason is not PermanentReason.READ_TIME_EXPIRED or after == first:
                raise


class ReadAhead:
    """A thread that reads one source after the other, ahead of whoever takes the documents; a context manager.

    Args:
        sources: begin reading; taken in order.
        is_over: nobody wants any more: :meth:`documents` ends, wherever it is.
        ahead_bytes: how much may wait to be taken.
    """

    def __init__(
        self,
        sources: Sequence[Callable[[], Iterator[RawDocument]]],
        *,
        is_over: Callable[[], bool],
        ahead_bytes: int = AHEAD_BYTES,
    ) -> None:
        self._sources = sources
        self._is_over = is_over
        self._ahead_bytes = ahead_bytes
        self._changed = threading.Condition()
        self._pages: deque[tuple[list[RawDocument], int]] = deque()  # with their bytes; an empty one ends a source
        self._held = 0
        self._stopped = False
        self._failure: BaseException | None = None
        # Of no importance to the process's end: it may be waiting for a server that does not answer.
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._pages.clear()
            self._changed.notify_all()
        self._thread.join(_JOIN_S)

    def documents(self) -> Iterator[RawDocument]:
        """Those of the next source.

        Raises:
            RunbookdError: what reading them raised, after those that came before it.
        """
        while page := self._take():
            yield from page

    def _take(self) -> list[RawDocument]:
        with self._changed:
            while not self._pages:
                if self._failure is not None:
                    raise self._failure
                if self._is_over():
                    return []
                self._changed.wait(_LOOK_S)
            page, size = self._pages.popleft()
            self._held -= size
            self._changed.notify_all()
            return page

    def _work(self) -> None:
        try:
            for source in self._sources:
                page: list[RawDocument] = []
                size = 0
                for raw in source():
                    page.append(raw)
                    size += len(raw.raw)
                    if len(page) == _PAGE or size >= _PAGE_BYTES:
                        if not self._offer(page, size):
                            return
                        page, size = [], 0
                if (page and not self._offer(page, size)) or not self._offer([], 0):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by whoever takes the documents
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _offer(self, page: list[RawDocument], size: int) -> bool:
        """Wait for room and put ``page`` there; false if nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._held < self._ahead_bytes)
            if self._stopped:
                return False
            self._pages.append((page, size))
            self._held += size
            self._changed.notify_all()
            return True


def in_chunks(
    documents: Iterator[RawDocument], size: Callable[[], int], *, most_bytes: int
) -> Iterator[list[RawDocument]]:
    """Documents in lists of ``size()``, asked anew for each, and of less where they come to ``most_bytes``."""
    chunk: list[RawDocument] = []
    most, held = size(), 0
    for raw in documents:
        chunk.append(raw)
        held += len(raw.raw)
        if len(chunk) >= most or held >= most_bytes:
            yield chunk
            chunk = []
            most, held = size(), 0
    if chunk:
        yield chunk
