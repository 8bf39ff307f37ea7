"""What the first user's application asks of its database: the runbook page's four queries, as requests.

Pure: the same seed gives the same requests. Called by :mod:`agent.sandbox.application`. Every collection that a
migration changes is read by a good share of the traffic, so that a release that can't read migrated documents shows
soon, whichever collection comes first; writes go to the transient ``sessions`` alone, which nobody migrates.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from agent.firestore.address import DatabaseAddress
from agent.firestore.protos import (
    BatchGetDocumentsRequest,
    CommitRequest,
    Document,
    Int32Value,
    RunQueryRequest,
    StructuredQuery,
    Value,
)
from agent.sandbox.vocabulary import STATUSES

QUEUE_LENGTH = 20
BATCH_SIZE = 20
_SESSIONS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One RPC of the application.

    Args:
        query: the page's slug for it: ``user_lookup``, ``queue_generation``, ``batch_updates``, ``stats_calculation``.
        rpc: the method's bare name.
        request: the serialised request.
        written: documents it writes.
    """

    query: str
    rpc: str
    request: bytes
    written: int = 0


class Traffic:
    """An endless supply of operations in the application's mix.

    Args:
        users: ids of users that exist.
        lessons: ids of lessons that exist.
        seed: of the mix and of who asks.
        by_key: ids of reviews, review_items and progress; given, queues and progress are read by name instead of by
            filter. Google's emulator answers a filter, and any limit, by reading the whole collection (measured: 0.06
            to 0.1 ms a document), so that a queue of 20 out of 200,000 items takes it many seconds; names, 10 ms.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        *,
        users: Sequence[str],
        lessons: Sequence[str],
        seed: int,
        by_key: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._address = address
        self._users = users
        self._lessons = lessons
        self._by_key = by_key
        self._random = Random(seed)
        self._batches = itertools.count()
        self._kinds = (self.user_lookup, self._review_queue, self._item_queue, self.batch_updates, self._progress)
        self._weights = (34, 16, 20, 10, 20)

    def next(self) -> Operation:
        """The next operation."""
        (kind,) = self._random.choices(self._kinds, self._weights)
        return kind()

    def one_of_each(self) -> list[Operation]:
        """One operation of every kind, for a warm-up."""
        return [kind() for kind in self._kinds]

    def user_lookup(self) -> Operation:
        """A user and the lesson they are in."""
        request = BatchGetDocumentsRequest(
            database=self._address.root,
            documents=[
                self._address.name("users", self._user()),
                self._address.name("lessons", self._random.choice(self._lessons)),
            ],
        )
        return Operation(query="user_lookup", rpc="BatchGetDocuments", request=request.SerializeToString())

    def batch_updates(self) -> Operation:
        """Twenty sessions rewritten in one commit; there are never more than a few hundred of them.

        In turn, not at random: commits under way together that touch the same document wait for each other.
        """
        now = int(time.time())
        first = next(self._batches) * BATCH_SIZE
        writes = [{"update": self._session((first + i) % _SESSIONS, now)} for i in range(BATCH_SIZE)]
        request = CommitRequest(database=self._address.root, writes=writes)
        return Operation(query="batch_updates", rpc="Commit", request=request.SerializeToString(), written=len(writes))

    def _review_queue(self) -> Operation:
        if self._by_key:
            return self._named("queue_generation", "reviews", QUEUE_LENGTH)
        return self._query(
            "queue_generation",
            "reviews",
            where=(("userId", self._user()),),
            order=("nextReviewAt", StructuredQuery.ASCENDING),
            limit=QUEUE_LENGTH,
        )

    def _item_queue(self) -> Operation:
        if self._by_key:
            return self._named("queue_generation", "review_items", QUEUE_LENGTH)
        return self._query(
            "queue_generation",
            "review_items",
            where=(("userId", self._user()), ("status", self._random.choice(STATUSES))),
            order=("lastReviewedAt", StructuredQuery.DESCENDING),
            limit=QUEUE_LENGTH,
        )

    def _progress(self) -> Operation:
        if self._by_key:
            return self._named("stats_calculation", "progress", QUEUE_LENGTH)
        return self._query("stats_calculation", "progress", where=(("userId", self._user()),), limit=50)

    def _named(self, query: str, collection: str, count: int) -> Operation:
        """Neighbours in the collection, as a user's own documents are."""
        ids = (self._by_key or {})[collection]
        first = self._random.randrange(max(len(ids) - count, 1))
        names = [self._address.name(collection, id_) for id_ in ids[first : first + count]]
        request = BatchGetDocumentsRequest(database=self._address.root, documents=names)
        return Operation(query=query, rpc="BatchGetDocuments", request=request.SerializeToString())

    def _query(
        self,
        query: str,
        collection: str,
        *,
        where: Sequence[tuple[str, str]],
        order: tuple[str, Any] | None = None,
        limit: int,
    ) -> Operation:
        filters = [
            {
                "field_filter": {
                    "field": {"field_path": path},
                    "op": StructuredQuery.FieldFilter.EQUAL,
                    "value": {"string_value": value},
                }
            }
            for path, value in where
        ]
        structured = StructuredQuery(
            from_=[{"collection_id": collection}],
            where={"composite_filter": {"op": StructuredQuery.CompositeFilter.AND, "filters": filters}},
            order_by=[{"field": {"field_path": order[0]}, "direction": order[1]}] if order else [],
            limit=Int32Value(value=limit),
        )
        request = RunQueryRequest(parent=self._address.documents, structured_query=structured)
        return Operation(query=query, rpc="RunQuery", request=request.SerializeToString())

    def _session(self, number: int, now: int) -> Any:
        return Document(
            name=self._address.name("sessions", f"app-{number:04}"),
            fields={
                "userId": Value(string_value=self._user()),
                "lastSeenAt": Value(timestamp_value={"seconds": now}),
                "step": Value(integer_value=self._random.randrange(100)),
            },
        )

    def _user(self) -> str:
        return self._random.choice(self._users)
