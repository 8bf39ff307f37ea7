"""Reading many documents at one moment.

Every request of a scan carries the same read_time, so a scan is a consistent picture however often it is interrupted:
a stream that breaks (Firestore ends them after about 60 s) continues behind the last name at the same read_time.
An end counts as the end when the server says ``done``; a stream that just stops, as production's sometimes do, is
asked again behind the last name until nothing comes.

Two RPCs can carry a scan. Measured with 20,000 documents of 1 KB on two cores (client CPU a document in brackets):
Google's emulator streams 10,000-25,000 documents a second by RunQuery (5 us) and pages 450-750 by ListDocuments
(11-13 us; each page costs it a pass over the collection and holds 150 at most); the sandbox streams 12,000-15,000
(28 us, because each comes alone) and pages 140,000 (3 us). Neither is right everywhere, so the first large collection
is asked both ways (:meth:`Scanner.faster`). The stream is what finds everything; pages are for a collection that is
known to be flat.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum

from agent.clock import Clock
from agent.faults import Transient, TransientReason
from agent.firestore.channel import Wire
from agent.firestore.document import RawDocument
from agent.firestore.envelope import ListDocumentsEnvelope, RunQueryEnvelope
from agent.firestore.names import collection_id, parent_of
from agent.firestore.protos import DocumentMask, ListDocumentsRequest
from agent.firestore.retry import Retrying
from agent.firestore.scopes import Collection, Scope, query_of, timestamp

PAGE = 300
_PAGE_BYTES = 1_000_000  # what a worker holds of documents of 1 MiB each must not depend on how many fit in a page
_STREAM_DEADLINE = 300.0
_CLEARLY = 1.5


class Carrier(StrEnum):
    """The RPC that a scan of a collection travels by."""

    STREAM = "RunQuery"
    PAGES = "ListDocuments"


class Scanner:
    """Scans over one channel.

    Args:
        retrying: patience per stall: progress renews it.
    """

    def __init__(self, channel: Wire, retrying: Retrying) -> None:
        self._channel = channel
        self._address = channel.address
        self._retrying = retrying

    def pages(
        self,
        scope: Scope,
        read_time: datetime | None,
        *,
        carrier: Carrier = Carrier.STREAM,
        keys_only: bool = False,
    ) -> Iterator[list[RawDocument]]:
        """The documents of ``scope`` in the order of names, in lists of up to :data:`PAGE`.

        At most one list is held; an iterator that is left alone stops the server through flow control.

        Args:
            read_time: pin; ``None`` reads each part as it is when it is read, which is not a consistent picture.
            carrier: ``PAGES`` is possible for a :class:`Collection` only.
            keys_only: names and times without fields.

        Raises:
            Transient: no progress for the whole retry budget.
            Permanent: READ_TIME_EXPIRED among others.
        """
        if carrier is Carrier.PAGES and isinstance(scope, Collection):
            return self._listed(scope, read_time, keys_only)
        return self._streamed(scope, read_time, keys_only)

    def faster(self, collection: Collection, read_time: datetime | None, clock: Clock) -> Carrier | None:
        """The carrier that brings documents of ``collection`` sooner; ``None`` if it has less than a page.

        Pages can't be split between readers, so they have to be clearly faster. They may be smaller than asked for:
        Google's emulator gives 150 documents at most.
        """
        seconds: dict[Carrier, float] = {}  # a document
        for carrier in (Carrier.STREAM, Carrier.PAGES):  # the stream first: it pays for whatever is cold
            began = clock.monotonic()
            found = len(next(self.pages(collection, read_time, carrier=carrier), []))
            if carrier is Carrier.STREAM and found < PAGE:
                return None
            seconds[carrier] = (clock.monotonic() - began) / max(1, found)
        return Carrier.PAGES if seconds[Carrier.PAGES] * _CLEARLY < seconds[Carrier.STREAM] else Carrier.STREAM

    def _streamed(self, scope: Scope, read_time: datetime | None, keys_only: bool) -> Iterator[list[RawDocument]]:
        patience = self._retrying.patience()
        after = ""
        while True:
            request = query_of(scope, self._address, after=after, keys_only=keys_only)
            if read_time is not None:
                request.read_time.CopyFrom(timestamp(read_time))
            page: list[RawDocument] = []
            size = 0
            answered = done = found = False
            failure: Transient | None = None
            try:
                for message in self._channel.stream("RunQuery", request.SerializeToString(), deadline=_STREAM_DEADLINE):
                    reply = RunQueryEnvelope.FromString(message)
                    answered, done = True, reply.done
                    if raw := reply.document:
                        page.append(RawDocument(raw))
                        size += len(raw)
                        if len(page) == PAGE or size >= _PAGE_BYTES:
                            after, found = page[-1].name, True
                            yield page
                            page, size = [], 0
            except Transient as error:
                failure = error
            if page:
                after, found = page[-1].name, True
                yield page
            if found:
                patience.renew()
            if failure is None and not answered:
                failure = Transient(
                    TransientReason.SERVER_ERROR, f"RunQuery on {self._address} ended without any answer"
                )
            if failure is not None:
                patience.pause(failure)
            elif done or not found:
                return

    def _listed(self, scope: Collection, read_time: datetime | None, keys_only: bool) -> Iterator[list[RawDocument]]:
        parent = parent_of(scope.path)
        request = ListDocumentsRequest(
            parent=self._address.name(parent) if parent else self._address.documents,
            collection_id=collection_id(scope.path),
            page_size=PAGE,
        )
        if keys_only:
            request.mask.CopyFrom(DocumentMask(field_paths=["__name__"]))
        if read_time is not None:
            request.read_time.CopyFrom(timestamp(read_time))
        while True:
            message = request.SerializeToString()
            reply = ListDocumentsEnvelope.FromString(
                self._retrying.call(lambda: self._channel.unary("ListDocuments", message))  # noqa: B023  # called before the next turn
            )
            if reply.documents:
                yield [RawDocument(raw) for raw in reply.documents]
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token
