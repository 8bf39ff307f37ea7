"""Evaluating a ``StructuredQuery``.

A query without filters in name order is a walk of stored bytes: nothing is parsed, and with an empty projection
not even fields are sent. Any other query parses what it has to look at. Called by the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any

from agent.firestore.protos import Document, StructuredQuery, Value
from agent.sandbox import frames
from agent.sandbox.catalogue import Collection, Scope
from agent.sandbox.filters import (
    Condition,
    Predicate,
    alternatives,
    conditions,
    conjuncts,
    field_key,
    operands,
    predicate,
)
from agent.sandbox.keys import AFTER_DESCENDANTS, path_key, split_name, split_parent
from agent.sandbox.order import sort_key
from agent.sandbox.status import failed_precondition, invalid, unimplemented
from agent.sandbox.values import NAME_FIELD, FieldPath, parse_field_path, project
from agent.sandbox.view import Row, View

_Field = StructuredQuery.FieldFilter
ELEMENTS = frozenset({_Field.ARRAY_CONTAINS, _Field.ARRAY_CONTAINS_ANY})
_EQUALITIES = ELEMENTS | {_Field.EQUAL, _Field.IN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One element of ``order_by``."""

    path: FieldPath
    descending: bool


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query, understood: :func:`plan` makes it, :meth:`run` and :meth:`documents` answer it."""

    scope: Scope
    orders: tuple[Order, ...]
    conditions: tuple[Condition, ...] = ()
    required: tuple[Condition, ...] = ()
    alternatives: tuple[tuple[Condition, ...], ...] = ((),)
    matches: Predicate | None = None
    start: tuple[tuple[bytes, ...], bool] | None = None
    end: tuple[tuple[bytes, ...], bool] | None = None
    low: bytes = b""
    high: bytes = AFTER_DESCENDANTS
    offset: int = 0
    limit: int | None = None
    projection: tuple[FieldPath, ...] | None = field(default=None)

    @property
    def in_name_order(self) -> bool:
        """Whether results come in name order and nothing else."""
        return len(self.orders) == 1

    def run(self, view: View) -> Iterator[bytes]:
        """The results, framed and projected, in order; the offset is skipped, the limit kept."""
        stop = None if self.limit is None else self.offset + self.limit
        if self.projection in ((), (NAME_FIELD,)) and self.in_name_order and not self.conditions_beyond_names:
            plates = view.nameplates(self.scope.collections(view.catalogue), low=self.low, high=self.high)
            return (framed for _, framed in islice(plates, self.offset, stop))
        rows = self.rows(view)
        if self.offset or stop is not None:
            rows = islice(rows, self.offset, stop)
        if self.projection is None:
            return (row[3] for _, row in rows)
        if self.projection in ((), (NAME_FIELD,)):
            return (frames.without_fields(row[3], row[1], row[2]) for _, row in rows)
        return (projected(row, self.projection) for _, row in rows)

    @property
    def conditions_beyond_names(self) -> bool:
        """Whether a document's fields decide if it is a result."""
        return self.matches is not None or self.selective is not None

    @property
    def selective(self) -> Condition | None:
        """The condition that an index can answer: the first equality, of a field or of an array's elements."""
        return next((c for c in self.required if c.op in _EQUALITIES and c.path != NAME_FIELD and not c.unary), None)

    def rows(self, view: View) -> Iterator[tuple[Collection, Row]]:
        """The matching rows in order, offset and limit not yet applied."""
        candidates = self._candidates(view)
        matches = self.matches
        if self.in_name_order:
            if matches is None:
                return candidates
            return ((c, row) for c, row in candidates if matches(frames.parse(row[3])))
        return self._sorted(candidates)

    def _candidates(self, view: View) -> Iterator[tuple[Collection, Row]]:
        """Rows in name order that hold all results: from an index where there is one, else all in range."""
        condition = self.selective
        collections = self.scope.collections(view.catalogue)
        if condition is None:
            return view.walk(collections, low=self.low, high=self.high)
        found: list[tuple[bytes, Collection, Row]] = []
        rest = []
        for collection in collections:
            rows = view.candidates(collection, condition.path, operands(condition), elements=condition.op in ELEMENTS)
            if rows is None:
                rest.append(collection)
                continue
            full = ((collection.prefix + row[0], collection, row) for row in rows)
            found += [item for item in full if self.low <= item[0] < self.high]
        scanned = view.walk(rest, low=self.low, high=self.high)
        if not found:
            return scanned
        found.sort(key=itemgetter(0))
        others = ((collection.prefix + row[0], collection, row) for collection, row in scanned)
        return ((collection, row) for _, collection, row in merge(found, others, key=itemgetter(0)))

    def _sorted(self, candidates: Iterator[tuple[Collection, Row]]) -> Iterator[tuple[Collection, Row]]:
        found: list[tuple[tuple[bytes, ...], Collection, Row]] = []
        fields = [order.path for order in self.orders if order.path != NAME_FIELD]
        for collection, row in candidates:
            document = frames.parse(row[3])
            if self.matches is not None and not self.matches(document):
                continue
            keys = [field_key(document, path) for path in fields]
            if None in keys:
                continue  # ordering by a field leaves out documents that lack it
            position = (*keys, collection.prefix + row[0])
            if self._within_cursors(position):  # type: ignore[arg-type]
                found.append((position, collection, row))  # type: ignore[arg-type]
        for index in range(len(self.orders) - 1, -1, -1):
            found.sort(key=lambda item: item[0][index], reverse=self.orders[index].descending)
        return ((collection, row) for _, collection, row in found)

    def _within_cursors(self, position: tuple[bytes, ...]) -> bool:
        if self.start is not None:
            bound, before = self.start
            side = self._compare(position, bound)
            if side < 0 or (side == 0 and not before):
                return False
        if self.end is not None:
            bound, before = self.end
            side = self._compare(position, bound)
            if side > 0 or (side == 0 and before):
                return False
        return True

    def _compare(self, position: tuple[bytes, ...], bound: tuple[bytes, ...]) -> int:
        for order, found, given in zip(self.orders, position, bound, strict=False):
            if found != given:
                return -1 if (found < given) != order.descending else 1
        return 0

    def documents(self, view: View) -> Iterator[Document]:
        """The results, parsed, offset and limit applied, not projected (for aggregations)."""
        stop = None if self.limit is None else self.offset + self.limit
        return (frames.parse(row[3]) for _, row in islice(self.rows(view), self.offset, stop))

    def count(self, view: View, up_to: int | None) -> int:
        """How many results there are, counted in the index alone where that is possible."""
        limits = [number for number in (self.limit, up_to) if number is not None]
        if self.matches is None and self.in_name_order:
            runs = view.runs(self.scope.collections(view.catalogue), low=self.low, high=self.high)
            number = max(sum(view.count(run) for run in runs) - self.offset, 0)
            return min([number, *limits])
        stop = self.offset + min(limits) if limits else None
        return sum(1 for _ in islice(self.rows(view), self.offset, stop))


def projected(row: Row, paths: Sequence[FieldPath]) -> bytes:
    """A row's document with the fields at ``paths`` alone, framed."""
    document = project(frames.parse(row[3]), paths)
    return frames.frame(frames.body_of(document), row[1], row[2])


def plan(parent_name: str, query: Any) -> Query:
    """Understand ``query`` (a StructuredQuery) below ``parent_name``.

    Raises:
        StatusError: INVALID_ARGUMENT where it isn't well formed; UNIMPLEMENTED for vector search.
    """
    if query.HasField("find_nearest"):
        raise unimplemented("The sandbox does not search vectors.")
    root, parent = split_parent(parent_name)
    selectors = query.from_
    if len(selectors) > 1:
        raise invalid("Only one collection selector is allowed in a query.")
    if query.offset < 0:
        raise invalid("offset is negative")
    if query.HasField("limit") and query.limit.value < 0:
        raise invalid("limit is negative")
    every: tuple[Condition, ...] = ()
    required: tuple[Condition, ...] = ()
    choices: tuple[tuple[Condition, ...], ...] = ((),)
    matches = None
    if query.HasField("where"):
        every = tuple(conditions(query.where))
        required = tuple(conjuncts(query.where))
        choices = tuple(alternatives(query.where))
        names = [condition for condition in required if _bounds_name(condition)]
        if len(names) < len(every):
            matches = predicate(query.where)
    orders = _orders(query, every)
    collection_id = selectors[0].collection_id if selectors else ""
    name_ascending = len(orders) == 1 and not orders[0].descending
    if not collection_id and not name_ascending:
        raise invalid("kind is required for all orders except __key__ ascending")
    if orders[0] == Order(path=NAME_FIELD, descending=True):
        # As production without an index made for it, and Google's emulator always, answer.
        raise failed_precondition("Firestore does not support descending key scans")
    low, high = _beneath(parent)
    low, high = _name_bounds(root, required, low, high)
    start, end = _cursor(query, "start_at", orders), _cursor(query, "end_at", orders)
    if len(orders) == 1:
        low, high = _cursor_bounds(root, orders[0], start, end, low, high)
    return Query(
        scope=Scope(
            root=root,
            parent=tuple(parent),
            name=collection_id,
            descendants=selectors[0].all_descendants if selectors else True,
        ),
        orders=orders,
        conditions=every,
        required=required,
        alternatives=choices,
        matches=matches,
        start=_keys_of(start, orders),
        end=_keys_of(end, orders),
        low=low,
        high=high,
        offset=query.offset,
        limit=query.limit.value if query.HasField("limit") else None,
        projection=_projection(query),
    )


def _projection(query: Any) -> tuple[FieldPath, ...] | None:
    if not query.HasField("select"):
        return None
    return tuple(parse_field_path(reference.field_path) for reference in query.select.fields)


def _orders(query: Any, every: Sequence[Condition]) -> tuple[Order, ...]:
    """The explicit order, completed as the service does: inequality fields, then the name."""
    orders = [
        Order(
            path=parse_field_path(given.field.field_path),
            descending=given.direction == StructuredQuery.DESCENDING,
        )
        for given in query.order_by
    ]
    descending = orders[-1].descending if orders else False
    present = {order.path for order in orders}
    if NAME_FIELD not in present:
        implied = {c.path for c in every if c.is_inequality} - present - {NAME_FIELD}
        orders += [Order(path=path, descending=descending) for path in sorted(implied)]
        orders.append(Order(path=NAME_FIELD, descending=descending))
    names = [order.path for order in orders].index(NAME_FIELD)
    return tuple(orders[: names + 1])  # names are unique: what follows can't matter


def _beneath(parent: Sequence[str]) -> tuple[bytes, bytes]:
    key = path_key(parent)
    return key, key + AFTER_DESCENDANTS


def _bounds_name(condition: Condition) -> bool:
    return condition.path == NAME_FIELD and condition.op in (
        _Field.EQUAL, _Field.LESS_THAN, _Field.LESS_THAN_OR_EQUAL, _Field.GREATER_THAN,
        _Field.GREATER_THAN_OR_EQUAL,
    )  # fmt: skip


def _name_bounds(root: str, required: Sequence[Condition], low: bytes, high: bytes) -> tuple[bytes, bytes]:
    """Narrow the range of full keys by the comparisons of ``__name__`` that every result satisfies."""
    for condition in required:
        if not _bounds_name(condition):
            continue
        key = _name_key(root, condition.value)
        match condition.op:
            case _Field.EQUAL:
                low, high = max(low, key), min(high, key + b"\x00")
            case _Field.LESS_THAN:
                high = min(high, key)
            case _Field.LESS_THAN_OR_EQUAL:
                high = min(high, key + b"\x00")
            case _Field.GREATER_THAN:
                low = max(low, key + b"\x00")
            case _:
                low = max(low, key)
    return low, high


def _name_key(root: str, value: Value) -> bytes:
    if value.WhichOneof("value_type") != "reference_value":
        raise invalid("__key__ filter value must be a Key")
    found_root, segments = split_name(value.reference_value)
    if found_root != root:
        raise invalid(f'"{value.reference_value}" is not in the database "{root}".')
    return path_key(segments)


def _cursor(query: Any, name: str, orders: Sequence[Order]) -> Any:
    if not query.HasField(name):
        return None
    cursor = getattr(query, name)
    if len(cursor.values) > len(orders):
        raise invalid("Cursor has too many values.")
    return cursor


def _keys_of(cursor: Any, orders: Sequence[Order]) -> tuple[tuple[bytes, ...], bool] | None:
    if cursor is None:
        return None
    keys = []
    for order, value in zip(orders, cursor.values, strict=False):
        if order.path == NAME_FIELD:
            root, _ = split_name(value.reference_value)
            keys.append(_name_key(root, value))
        else:
            keys.append(sort_key(value))
    return tuple(keys), cursor.before


def _cursor_bounds(root: str, order: Order, start: Any, end: Any, low: bytes, high: bytes) -> tuple[bytes, bytes]:
    """Cursors of a query in name order, as a range of full keys."""
    first, last = (end, start) if order.descending else (start, end)
    if first is not None and first.values:
        # Ascending, start_at with ``before`` includes its position; descending, end_at without it does.
        included = first.before != order.descending
        low = max(low, _name_key(root, first.values[0]) + (b"" if included else b"\x00"))
    if last is not None and last.values:
        included = last.before == order.descending
        high = min(high, _name_key(root, last.values[0]) + (b"\x00" if included else b""))
    return low, high
