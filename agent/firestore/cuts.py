"""Names at which a range of documents falls into about equal pieces.

Production and the sandbox have PartitionQuery for it. Google's emulator has not; there, keys-only queries with an
offset give exact cuts at a price that only an emulator may ask (production would bill every document skipped).
"""

from __future__ import annotations

from datetime import datetime

from agent.faults import Permanent, PermanentReason
from agent.firestore.channel import Wire
from agent.firestore.document import RawDocument
from agent.firestore.envelope import RunQueryEnvelope
from agent.firestore.protos import Int32Value, PartitionQueryRequest, PartitionQueryResponse
from agent.firestore.retry import Retrying
from agent.firestore.scopes import CollectionGroup, NameRange, query_of, timestamp


class Cuts:
    """Finds cuts over one channel."""

    def __init__(self, channel: Wire, retrying: Retrying) -> None:
        self._channel = channel
        self._address = channel.address
        self._retrying = retrying

    def of(self, scope: NameRange, root: str, pieces: int, read_time: datetime) -> list[str]:
        """Paths of documents, at most about ``pieces - 1``, in no particular order, some maybe outside ``scope``.

        Args:
            scope: the documents of one root collection and everything beneath them.
            root: that collection.
        """
        try:
            return self._by_partition(root, pieces, read_time)
        except Permanent as error:
            if error.reason is not PermanentReason.UNSUPPORTED:
                raise
            return self._by_offset(scope, pieces, read_time)

    def _by_partition(self, root: str, pieces: int, read_time: datetime) -> list[str]:
        query = query_of(CollectionGroup(id=root), self._address)
        request = PartitionQueryRequest(
            parent=query.parent,
            structured_query=query.structured_query,
            partition_count=pieces - 1,
            read_time=timestamp(read_time),
        )
        cuts: list[str] = []
        while True:
            message = request.SerializeToString()
            reply = PartitionQueryResponse.FromString(
                self._retrying.call(lambda: self._channel.unary("PartitionQuery", message))  # noqa: B023  # called before the next turn
            )
            cuts.extend(self._address.relative(cursor.values[0].reference_value) for cursor in reply.partitions)
            if not reply.next_page_token:
                return cuts
            request.page_token = reply.next_page_token

    def _by_offset(self, scope: NameRange, pieces: int, read_time: datetime) -> list[str]:
        cuts: list[str] = []
        for piece in range(1, pieces):
            request = query_of(scope, self._address, keys_only=True)
            request.structured_query.offset = (scope.expected or 0) * piece // pieces
            request.structured_query.limit.CopyFrom(Int32Value(value=1))
            request.read_time.CopyFrom(timestamp(read_time))
            message = request.SerializeToString()
            replies = self._retrying.call(lambda: list(self._channel.stream("RunQuery", message)))  # noqa: B023  # called before the next turn
            cuts.extend(
                self._address.relative(RawDocument(raw).name)
                for raw in (RunQueryEnvelope.FromString(reply).document for reply in replies)
                if raw
            )
        return cuts
