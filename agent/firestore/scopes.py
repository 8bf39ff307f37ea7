"""What a scan covers, and the queries that say so to the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.firestore.address import DatabaseAddress
from agent.firestore.names import collection_id, parent_of
from agent.firestore.protos import (
    RunAggregationQueryRequest,
    RunQueryRequest,
    StructuredAggregationQuery,
    StructuredQuery,
    Timestamp,
    Value,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class NameRange:
    """Every document from ``first`` up to, without, ``last``, at any depth, under missing parents too.

    Args:
        first: path of a document (it need not exist); ``""``: from the beginning.
        last: path of a document; ``""``: to the end.
        expected: number of documents in it when it was planned, if known.
    """

    first: str = ""
    last: str = ""
    expected: int | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Collection:
    """The documents directly in one collection.

    Args:
        path: e.g. ``users`` or ``users/u1/items``.
        expected: number of documents in it when it was planned, if known.
    """

    path: str
    expected: int | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class CollectionGroup:
    """The documents of every collection with this id, wherever it occurs.

    Args:
        id: e.g. ``items``.
        first: as in :class:`NameRange`.
        last: as in :class:`NameRange`.
        expected: number of documents in it when it was planned, if known.
    """

    id: str
    first: str = ""
    last: str = ""
    expected: int | None = field(default=None, compare=False)


Scope = NameRange | Collection | CollectionGroup

EVERYTHING = NameRange()


def query_of(scope: Scope, address: DatabaseAddress, *, after: str = "", keys_only: bool = False) -> RunQueryRequest:
    """The query for ``scope`` in the order of names.

    Args:
        after: full name of the last document already seen; ``""`` for none.
        keys_only: ask for names and times without fields (79 bytes a document).
    """
    parent, selector = _selector(scope, address)
    query = StructuredQuery(from_=[selector])
    query.order_by.add(direction=StructuredQuery.ASCENDING).field.field_path = "__name__"
    if keys_only:
        query.select.fields.add(field_path="__name__")
    bounds = []
    first, last = (scope.first, scope.last) if not isinstance(scope, Collection) else ("", "")
    if after:
        bounds.append(_bound(StructuredQuery.FieldFilter.GREATER_THAN, after))
    elif first:
        bounds.append(_bound(StructuredQuery.FieldFilter.GREATER_THAN_OR_EQUAL, address.name(first)))
    if last:
        bounds.append(_bound(StructuredQuery.FieldFilter.LESS_THAN, address.name(last)))
    if len(bounds) == 1:
        query.where.CopyFrom(bounds[0])
    elif bounds:
        query.where.composite_filter.op = StructuredQuery.CompositeFilter.AND
        query.where.composite_filter.filters.extend(bounds)
    return RunQueryRequest(parent=parent, structured_query=query)


def count_of(request: RunQueryRequest) -> RunAggregationQueryRequest:
    """How many documents the query of ``request`` finds, as ``n``."""
    counted = StructuredAggregationQuery(structured_query=request.structured_query)
    counted.structured_query.ClearField("order_by")
    counted.structured_query.ClearField("select")
    counted.aggregations.add(alias="n").count.SetInParent()
    made = RunAggregationQueryRequest(parent=request.parent, structured_aggregation_query=counted)
    if request.HasField("read_time"):
        made.read_time.CopyFrom(request.read_time)
    return made


def timestamp(moment: datetime) -> Timestamp:
    """``moment`` for the wire; exact, where ``datetime.timestamp()`` is a float."""
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    seconds, rest = divmod(microseconds, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def moment_of(message: Timestamp) -> datetime:
    """``message`` cut to microseconds, which is the precision of a read_time."""
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def nanoseconds(message: Timestamp) -> int:
    """``message`` in nanoseconds since the epoch."""
    return int(message.seconds * _NS + message.nanos)


def _selector(scope: Scope, address: DatabaseAddress) -> tuple[str, Any]:
    selector = StructuredQuery.CollectionSelector
    match scope:
        case Collection(path=path):
            parent = parent_of(path)
            return address.name(parent) if parent else address.documents, selector(collection_id=collection_id(path))
        case CollectionGroup(id=group):
            return address.documents, selector(collection_id=group, all_descendants=True)
        case NameRange():
            return address.documents, selector(all_descendants=True)


def _bound(op: int, name: str) -> Any:
    made = StructuredQuery.Filter()
    made.field_filter.field.field_path = "__name__"
    made.field_filter.op = op
    made.field_filter.value.CopyFrom(Value(reference_value=name))
    return made
