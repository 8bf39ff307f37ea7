"""What a migration reads: collections at a pinned read_time, ahead of the threads that write.

A server prepares a large result before the first document comes: Google's emulator takes 2.5 s for 76,000 documents,
on one core, while nothing could be written. So a run reads on, some megabytes ahead, and asks for the next collections
while the documents before them are still being written. Writing keeps the collections' order. A document that somebody
writes in between is found out by its precondition, as ever.

The emulator also holds a result until all of it is taken, and writes the slower for it: a run over 100,000 documents
that nobody slows down takes 115 us a document where it reads as fast as it can, and 137 where it holds 8 MB. So such a
run reads far ahead, and what waits is packed. A run with a rate reads a few seconds ahead: what is read early is
changed by others before its turn.

Called by run, dry run and validation.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import accumulate, chain
from types import TracebackType
from typing import Self

import zstandard

from agent.ahead import Ahead
from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.firestore import CollectionGroup, RawDocument
from agent.migration.database import Database
from agent.migration.journal import ScanRange

AHEAD_BYTES = 8_000_000
"""What is held of one source's documents that nobody works on yet."""
FAR_AHEAD_BYTES = 30_000_000
"""The same of the source whose turn it is, in a run without a rate; beyond :data:`AHEAD_BYTES` packed, documents of 1
KB to 350 bytes or so. Not of every source: documents that can't be packed would fill a worker's memory."""
AT_ONCE = 4
"""Sources that are read at once."""
COMING = 20_000
"""Documents before a source when it is begun: two seconds of an unhindered run, 22 s at 900 a second. Servers cut off
streams of which nobody takes anything for a minute."""
_HEAD_BYTES = 150  # of a packed document: a name of 70 letters and two numbers


def scan(
    database: Database, scan_range: ScanRange, *, after: str, repin_after: timedelta, clock: Clock
) -> Iterator[list[RawDocument]]:
    """The documents of a range behind ``after`` (a full name, or empty), in name order, each once, in lists.

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
            for page in database.pages(scope, database.server_time()):
                if fresh := page[1:] if page[0].name == first else page:
                    yield fresh
                    after = fresh[-1].name
                if clock.monotonic() - pinned > repin_after.total_seconds():
                    break
            else:
                return
        except Permanent as error:
            # A machine that was asleep: its monotonic clock stood still and the hour went by.
            if error.reason is not PermanentReason.READ_TIME_EXPIRED or after == first:
                raise


@dataclass(frozen=True, kw_only=True)
class Source:
    """One thing to read.

    Args:
        begin: starts reading it, in lists of which none is empty; called in a thread of its own.
        expected: about how many documents it has.
    """

    begin: Callable[[], Iterator[list[RawDocument]]]
    expected: int


class ReadAhead:
    """Reads one source after the other, ahead of whoever takes the documents; a context manager.

    A source is begun when :data:`COMING` documents or fewer come before it.

    Args:
        sources: in the order in which they are taken.
        is_over: nobody wants any more: :meth:`documents` ends, wherever it is.
        is_free: whether the run goes as fast as it can; asked when a source's turn comes.
    """

    def __init__(
        self, sources: Sequence[Source], *, is_over: Callable[[], bool], is_free: Callable[[], bool] = lambda: False
    ) -> None:
        self._sources = sources
        self._is_over = is_over
        self._is_free = is_free
        self._begun: list[Ahead[_Page]] = []
        self._taken = 0  # sources of which everything is taken

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._begun:
            reader.stop()
        for reader in self._begun:
            reader.close()

    def documents(self) -> Iterator[RawDocument]:
        """Those of the next source.

        Raises:
            RunbookdError: what reading them raised, after those that came before it.
        """
        expected = self._sources[self._taken].expected
        self._begin(coming=expected)
        reader = self._begun[self._taken]
        if self._is_free():
            reader.widen(FAR_AHEAD_BYTES)
        while page := reader.take(self._is_over):
            expected -= len(page)
            self._begin(coming=expected)
            yield from page.documents()
        self._taken += 1

    def _begin(self, *, coming: int) -> None:
        """Begin what is due; ``coming`` documents are left of the source that is being taken."""
        for number, source in enumerate(self._sources[self._taken : self._taken + AT_ONCE], self._taken):
            if number > self._taken and coming > COMING:
                return
            if number == len(self._begun):
                begin = partial(_begun, source)
                self._begun.append(Ahead(begin, most=AHEAD_BYTES, weigh=_size, shrink=_Packed, loose=AHEAD_BYTES))
            if number > self._taken:
                coming += source.expected


class _Page:
    """Some documents on their way; its size is in bytes."""

    def __init__(self, raws: list[RawDocument]) -> None:
        self._raws = raws
        self.size = sum([len(raw.raw) for raw in raws])

    def __len__(self) -> int:
        return len(self._raws)

    def documents(self) -> list[RawDocument]:
        """In their order."""
        return self._raws


class _Packed(_Page):
    """The same in a third of the room; what has been read out of the documents stays beside them."""

    def __init__(self, page: _Page) -> None:
        raws = page.documents()
        self._names = [raw.name for raw in raws]
        self._times = array("q", [raw.update_time for raw in raws])
        self._ends = array("L", accumulate([len(raw.raw) for raw in raws]))
        self._data = zstandard.ZstdCompressor(level=1).compress(b"".join([raw.raw for raw in raws]))
        self.size = len(self._data) + len(raws) * _HEAD_BYTES

    def __len__(self) -> int:
        return len(self._names)

    def documents(self) -> list[RawDocument]:
        data = zstandard.ZstdDecompressor().decompress(self._data)
        begins = chain((0,), self._ends)
        return [
            RawDocument.known(data[begin:end], name=name, update_time=update_time)
            for begin, end, name, update_time in zip(begins, self._ends, self._names, self._times, strict=False)
        ]


def _begun(source: Source) -> Iterator[_Page]:
    for raws in source.begin():
        yield _Page(raws)


def _size(page: _Page) -> int:
    return page.size


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
