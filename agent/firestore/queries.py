"""Queries by their parts: collection, filters, order, limit.

Called by :mod:`agent.firestore.indexes` (which asks a query to see whether an index serves it) and by whoever measures
an application's queries. Scans don't come here, see :mod:`agent.firestore.scopes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.firestore.protos import Int32Value, StructuredQuery
from agent.firestore.values import encode


class Comparison(StrEnum):
    """How a filter compares, as Firestore's clients write it."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    BELOW = "<"
    AT_MOST = "<="
    ABOVE = ">"
    AT_LEAST = ">="
    IN = "in"
    CONTAINS = "array-contains"


_OPERATORS = {
    Comparison.EQUAL: StructuredQuery.FieldFilter.EQUAL,
    Comparison.NOT_EQUAL: StructuredQuery.FieldFilter.NOT_EQUAL,
    Comparison.BELOW: StructuredQuery.FieldFilter.LESS_THAN,
    Comparison.AT_MOST: StructuredQuery.FieldFilter.LESS_THAN_OR_EQUAL,
    Comparison.ABOVE: StructuredQuery.FieldFilter.GREATER_THAN,
    Comparison.AT_LEAST: StructuredQuery.FieldFilter.GREATER_THAN_OR_EQUAL,
    Comparison.IN: StructuredQuery.FieldFilter.IN,
    Comparison.CONTAINS: StructuredQuery.FieldFilter.ARRAY_CONTAINS,
}


@dataclass(frozen=True, kw_only=True)
class Where:
    """A filter; ``value`` is a Python value, see :mod:`agent.firestore.values`."""

    field: str
    value: Any
    comparison: Comparison = Comparison.EQUAL


@dataclass(frozen=True, kw_only=True)
class Order:
    """A field that results are sorted by."""

    field: str
    descending: bool = False


def structured_query(
    collection: str,
    *,
    group: bool = False,
    where: Sequence[Where] = (),
    order: Sequence[Order] = (),
    limit: int | None = None,
) -> StructuredQuery:
    """The query, for :meth:`agent.firestore.Firestore.run_query`.

    Args:
        collection: id.
        group: every collection with this id, not only the one below the query's parent.
    """
    query = StructuredQuery(from_=[{"collection_id": collection, "all_descendants": group}])
    for condition in where:
        made = query.where.composite_filter.filters.add().field_filter
        made.field.field_path = condition.field
        made.op = _OPERATORS[condition.comparison]
        made.value.CopyFrom(encode(condition.value))
    if where:
        query.where.composite_filter.op = StructuredQuery.CompositeFilter.AND
    for part in order:
        direction = StructuredQuery.DESCENDING if part.descending else StructuredQuery.ASCENDING
        query.order_by.add(direction=direction).field.field_path = part.field
    if limit is not None:
        query.limit.CopyFrom(Int32Value(value=limit))
    return query
