"""Names at which a range of documents falls into about equal pieces: PartitionQuery, which production and the sandbox
have. Google's emulator has not, and had better not be cut: it answers each range of a kindless query by a pass over
the whole database. Of 30,723 documents it gave up one stream for some 60 us of its CPU a document, 22 ranges for
300-380, and finding their bounds by offsets cost it another 450.
"""

from __future__ import annotations

from datetime import datetime

from agent.faults import Permanent, PermanentReason
from agent.firestore.channel import Wire
from agent.firestore.protos import PartitionQueryRequest, PartitionQueryResponse
from agent.firestore.retry import Retrying
from agent.firestore.scopes import CollectionGroup, query_of, timestamp

_ANY = "runbookd"


class Cuts:
    """Finds cuts over one channel."""

    def __init__(self, channel: Wire, retrying: Retrying) -> None:
        self._channel = channel
        self._address = channel.address
        self._retrying = retrying
        self._possible: bool | None = None

    def possible(self, read_time: datetime) -> bool:
        """Whether the server cuts at all; asked once, of a collection that need not be there.

        Not of one that is there: to list those of 306,000 documents takes Google's emulator more than a second.
        """
        if self._possible is None:
            try:
                self.of(_ANY, 2, read_time)
                self._possible = True
            except Permanent as error:
                if error.reason not in (PermanentReason.UNSUPPORTED, PermanentReason.INVALID):
                    raise
                self._possible = False
        return self._possible

    def of(self, root: str, pieces: int, read_time: datetime) -> list[str]:
        """Paths of documents, at most about ``pieces - 1``, in no particular order.

        Args:
            root: a root collection; the paths may lie in collections of the same id elsewhere.

        Raises:
            Permanent: UNSUPPORTED where :meth:`possible` says so.
        """
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
