"""One open database: what the other rooms hold in their hands.

Every RPC is measured by the channel; every read is retried within its budget; every write goes through the ledger
writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from types import TracebackType
from typing import Self

from agent.clock import Clock, SystemClock
from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    Transient,
    TransientReason,
)
from agent.firestore import splitting
from agent.firestore.address import DatabaseAddress
from agent.firestore.batchwrite import BatchWritePort
from agent.firestore.channel import Channel
from agent.firestore.cuts import Cuts
from agent.firestore.delivery import Delivery
from agent.firestore.document import DocumentKey, RawDocument
from agent.firestore.envelope import BatchGetEnvelope, RunQueryEnvelope
from agent.firestore.protos import (
    BatchGetDocumentsRequest,
    BatchGetDocumentsResponse,
    Int32Value,
    ListCollectionIdsRequest,
    ListCollectionIdsResponse,
    RunAggregationQueryResponse,
    RunQueryRequest,
    StructuredQuery,
)
from agent.firestore.rate import RateLimit, TokenBucket
from agent.firestore.retry import JITTER, Retrying, RetryPolicy
from agent.firestore.scan import Carrier, Scanner
from agent.firestore.scopes import (
    EVERYTHING,
    Collection,
    NameRange,
    Scope,
    count_of,
    moment_of,
    query_of,
    timestamp,
)
from agent.firestore.writer import BatchLimits, Delivered, WriteRun
from agent.firestore.writes import Batch, BatchObserver, PlannedWrite, WriteState
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import DOCUMENTS_READ, DOCUMENTS_WRITTEN, WRITE_RETRIES

_GET_AT_ONCE = 300
_CHECK_DEADLINE = 5.0
_NOWHERE = "_runbookd/clock"


class Firestore:
    """A connection to one database; thread-safe; a context manager.

    Args:
        origin: who reads and writes, e.g. ``backup``; the label of the document counters.
        deadline: seconds per RPC; streams have their own.
        retry: how long a stalled call is retried.
        carrier: how a flat collection is scanned; ``None``: try both on the first one and keep the faster.
        draw: randomness for back-off, evenly distributed in [0, 1).

    Raises:
        Misconfigured: production without credentials.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        *,
        telemetry: Telemetry,
        origin: str = "application",
        deadline: float = 60.0,
        retry: RetryPolicy | None = None,
        carrier: Carrier | None = None,
        clock: Clock | None = None,
        draw: Callable[[], float] = JITTER,
    ) -> None:
        self.address = address
        self.origin = origin
        self._telemetry = telemetry
        self._clock = clock or SystemClock()
        self._retrying = Retrying(retry or RetryPolicy(), clock=self._clock, draw=draw)
        self._channel = Channel(address, telemetry=telemetry, clock=self._clock, deadline=deadline)
        self._scanner = Scanner(self._channel, self._retrying)
        self._cuts = Cuts(self._channel, self._retrying)
        self._carrier = carrier

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; calls under way fail."""
        self._channel.close()

    # --- is it there, and what time is it there ----------------------------------------------------------------

    def check(self) -> None:
        """One cheap read, without retries.

        Raises:
            Misconfigured: ADDRESS if nothing answers, CREDENTIALS if it doesn't let us in.
        """
        try:
            self._server_time(_CHECK_DEADLINE)
        except Transient as error:
            raise Misconfigured(
                MisconfiguredReason.ADDRESS,
                f"no Firestore answers at {self.address.target} ({error.reason})",
                hint="check the address and that the server is running; "
                "FIRESTORE_EMULATOR_HOST names an emulator or sandbox, and must be unset for production",
            ) from error
        except Permanent as error:
            raise Misconfigured(
                MisconfiguredReason.ADDRESS,
                f"what answers at {self.address.target} is no Firestore with {self.address.root}: {error.message}",
                hint="check the address, the project id and the database id",
            ) from error

    def server_time(self) -> datetime:
        """The server's time, usable as a read_time at once: everything written before the call is visible in it."""
        return self._retrying.call(lambda: self._server_time(None))

    def _server_time(self, deadline: float | None) -> datetime:
        request = BatchGetDocumentsRequest(database=self.address.root, documents=[self.address.name(_NOWHERE)])
        moment: datetime | None = None
        for message in self._channel.stream("BatchGetDocuments", request.SerializeToString(), deadline=deadline):
            reply = BatchGetDocumentsResponse.FromString(message)
            if reply.HasField("read_time"):
                moment = moment_of(reply.read_time)
        if moment is None:
            raise Transient(
                TransientReason.SERVER_ERROR, f"BatchGetDocuments on {self.address} came without a read_time"
            )
        return moment

    # --- many documents ----------------------------------------------------------------------------------------

    def ranges(
        self,
        parts: int,
        read_time: datetime,
        *,
        known: Sequence[str] = (),
        sizes: Mapping[str, float] | None = None,
    ) -> list[Scope]:
        """Disjoint scopes that together are every document, under missing parents too, in the order of names.

        A server that can't cut (Google's emulator) is read in one: see :mod:`agent.firestore.cuts`.

        Args:
            parts: how many of about equal size are wanted; each root collection is at least one.
            sizes: mean bytes of a document under a root collection, as far as an earlier scan told: equal size is
                bytes then, and documents otherwise.
            known: paths of documents, in order, that an earlier scan found to cut the database well. They are taken
                as they are, unless flat collections are better read whole: counting is dear where paging is slow.
        """
        if not self._cuts.possible(read_time):
            return [EVERYTHING]
        roots = self.collection_ids(read_time=read_time)
        if not roots:
            return [NameRange(expected=0)]
        pageable = self._faster_carrier(roots, read_time) is Carrier.PAGES
        if known and not pageable:
            return [NameRange(first=first, last=last) for first, last in pairwise(["", *known[1:], ""])]
        try:
            return splitting.plan(
                parts=parts,
                roots=roots,
                count=lambda scope: self.count(scope, read_time),
                cuts=lambda root, pieces: self._cuts.of(root, pieces, read_time),
                pageable=pageable,
                sizes=sizes,
            )
        except Permanent as error:
            if error.reason in (PermanentReason.UNSUPPORTED, PermanentReason.INVALID):
                return [EVERYTHING]  # a server that doesn't count: one part, slower, and nothing is missed
            raise

    def pages(
        self, scope: Scope = EVERYTHING, read_time: datetime | None = None, *, keys_only: bool = False
    ) -> Iterator[list[RawDocument]]:
        """The documents of ``scope`` in the order of names, in lists as they arrive.

        Args:
            read_time: pin; ``None`` reads each part as it is when it is read.
            keys_only: documents without fields.

        Raises:
            Transient: no progress for the whole retry budget.
            Permanent: READ_TIME_EXPIRED among others.
        """
        carrier = Carrier.STREAM
        if isinstance(scope, Collection):
            carrier = self._faster_carrier([scope.path], read_time)
        for page in self._scanner.pages(scope, read_time, carrier=carrier, keys_only=keys_only):
            self._telemetry.add(DOCUMENTS_READ, len(page), {"origin": self.origin})
            yield page

    def documents(self, scope: Scope = EVERYTHING, read_time: datetime | None = None) -> Iterator[RawDocument]:
        """:meth:`pages`, one document at a time."""
        for page in self.pages(scope, read_time):
            yield from page

    def keys(self, scope: Scope = EVERYTHING, read_time: datetime | None = None) -> Iterator[DocumentKey]:
        """Names and update times of the documents of ``scope``, in the order of names."""
        for page in self.pages(scope, read_time, keys_only=True):
            for document in page:
                yield DocumentKey(document.name, document.update_time)

    def head(self, scope: Scope, limit: int, read_time: datetime | None = None) -> list[RawDocument]:
        """The first documents of ``scope`` in the order of names; no more than ``limit`` are read, and paid for."""
        query = query_of(scope, self.address)
        query.structured_query.limit.CopyFrom(Int32Value(value=limit))
        if read_time is not None:
            query.read_time.CopyFrom(timestamp(read_time))
        request = query.SerializeToString()

        def attempt() -> list[RawDocument]:
            replies = map(RunQueryEnvelope.FromString, self._channel.stream("RunQuery", request))
            return [RawDocument(reply.document) for reply in replies if reply.document]

        found = self._retrying.call(attempt)
        self._telemetry.add(DOCUMENTS_READ, len(found), {"origin": self.origin})
        return found

    def get(
        self, names: Sequence[str], read_time: datetime | None = None, *, summary: str = ""
    ) -> dict[str, RawDocument | None]:
        """Documents by full name, in the order asked for; ``None`` where there is none.

        Args:
            summary: ``db.query.summary`` of the latency metric; for an application's own queries.
        """
        found: dict[str, RawDocument | None] = {}
        for begin in range(0, len(names), _GET_AT_ONCE):
            wanted = list(dict.fromkeys(names[begin : begin + _GET_AT_ONCE]))
            got: dict[str, RawDocument | None] = {}
            self._retrying.call(lambda: self._get_into(got, wanted, read_time, summary))  # noqa: B023  # called before the next turn
            found.update((name, got[name]) for name in wanted)
        self._telemetry.add(DOCUMENTS_READ, len(found), {"origin": self.origin})
        return found

    def _get_into(
        self,
        got: dict[str, RawDocument | None],
        wanted: Sequence[str],
        read_time: datetime | None,
        summary: str,
    ) -> None:
        rest = [name for name in wanted if name not in got]
        request = BatchGetDocumentsRequest(database=self.address.root, documents=rest)
        if read_time is not None:
            request.read_time.CopyFrom(timestamp(read_time))
        for message in self._channel.stream("BatchGetDocuments", request.SerializeToString(), summary=summary):
            reply = BatchGetEnvelope.FromString(message)
            if reply.found:
                document = RawDocument(reply.found)
                got[document.name] = document
            elif reply.missing:
                got[reply.missing] = None
        if any(name not in got for name in rest):
            raise Transient(
                TransientReason.SERVER_ERROR, f"BatchGetDocuments on {self.address} ended before all documents came"
            )

    def count(self, scope: Scope = EVERYTHING, read_time: datetime | None = None) -> int:
        """Number of documents in ``scope``, counted by the server."""
        query = query_of(scope, self.address)
        if read_time is not None:
            query.read_time.CopyFrom(timestamp(read_time))
        request = count_of(query).SerializeToString()

        def attempt() -> int:
            counted: int | None = None
            for message in self._channel.stream("RunAggregationQuery", request):
                reply = RunAggregationQueryResponse.FromString(message)
                if "n" in reply.result.aggregate_fields:
                    counted = int(reply.result.aggregate_fields["n"].integer_value)
            if counted is None:
                raise Transient(
                    TransientReason.SERVER_ERROR, f"RunAggregationQuery on {self.address} came without a count"
                )
            return counted

        return self._retrying.call(attempt)

    def collection_ids(self, parent: str = "", read_time: datetime | None = None) -> list[str]:
        """Ids of the collections under a document (its path), or of the root collections; sorted as received."""
        request = ListCollectionIdsRequest(
            parent=self.address.name(parent) if parent else self.address.documents, page_size=300
        )
        if read_time is not None:
            request.read_time.CopyFrom(timestamp(read_time))
        ids: list[str] = []
        while True:
            message = request.SerializeToString()
            reply = ListCollectionIdsResponse.FromString(
                self._retrying.call(lambda: self._channel.unary("ListCollectionIds", message))  # noqa: B023  # called before the next turn
            )
            ids.extend(reply.collection_ids)
            if not reply.next_page_token:
                return ids
            request.page_token = reply.next_page_token

    def run_query(
        self,
        query: StructuredQuery,
        *,
        parent: str = "",
        read_time: datetime | None = None,
        summary: str = "",
        deadline: float | None = None,
    ) -> Iterator[RawDocument]:
        """Documents that ``query`` finds, unretried: for probes and for an application's own queries.

        Args:
            parent: path of a document; ``""`` for the root.
            summary: ``db.query.summary`` of the latency metric, e.g. ``user_lookup``.
            deadline: seconds.

        Raises:
            Misconfigured: MISSING_INDEX, with the link that creates it as the hint.
        """
        request = RunQueryRequest(
            parent=self.address.name(parent) if parent else self.address.documents, structured_query=query
        )
        if read_time is not None:
            request.read_time.CopyFrom(timestamp(read_time))
        found = 0
        for message in self._channel.stream(
            "RunQuery", request.SerializeToString(), summary=summary, deadline=deadline
        ):
            if raw := RunQueryEnvelope.FromString(message).document:
                found += 1
                yield RawDocument(raw)
        self._telemetry.add(DOCUMENTS_READ, found, {"origin": self.origin})

    # --- writing -----------------------------------------------------------------------------------------------

    def write(
        self,
        writes: Iterable[PlannedWrite],
        *,
        origin: str = "",
        batch_count: int = 500,
        batch_bytes: int = 3_500_000,
        parallel: int = 8,
        rate_limit: RateLimit | None = None,
        on_batch: BatchObserver | None = None,
        summary: str = "",
    ) -> WriteRun:
        """Write through the ledger; nothing happens before the returned run is iterated.

        Args:
            origin: label of the counters; default is this connection's.
            batch_bytes: ceiling of a request. Google's emulator refuses more than 4 MiB, production more than 10.
            parallel: requests on their way at once.
            on_batch: told before a batch is sent and after it has ended.
            summary: ``db.query.summary`` of the latency metric; for an application's own writes.
        """
        who = origin or self.origin
        port = BatchWritePort(self._channel, self.get, summary=summary)

        def deliver(batch: Batch) -> Delivered:
            delivery = Delivery(batch, port=port, retrying=self._retrying)
            outcomes, fatal = delivery.run()
            applied = sum(outcome.state is WriteState.APPLIED for outcome in outcomes)
            self._telemetry.add(DOCUMENTS_WRITTEN, applied, {"origin": who})
            for reason in delivery.retries:
                self._telemetry.add(WRITE_RETRIES, 1, {"origin": who, "error.type": str(reason)})
            return outcomes, fatal

        return WriteRun(
            writes,
            deliver=deliver,
            limits=BatchLimits(count=batch_count, size=batch_bytes, parallel=parallel),
            observer=on_batch,
            bucket=TokenBucket(rate_limit, self._clock) if rate_limit else None,
        )

    # --- inside ------------------------------------------------------------------------------------------------

    def _faster_carrier(self, collections: Sequence[str], read_time: datetime | None) -> Carrier:
        """The carrier for flat collections, found out on the first collection that is large enough to tell."""
        if self._carrier is None:
            self._carrier = next(
                (
                    found
                    for path in collections
                    if (found := self._scanner.faster(Collection(path=path), read_time, self._clock)) is not None
                ),
                None,
            )
        return self._carrier or Carrier.STREAM
