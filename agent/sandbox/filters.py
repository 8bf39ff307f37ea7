"""The ``where`` of a query as a predicate on documents.

Called by ``query.py``. Every comparison is one of :func:`agent.sandbox.order.sort_key` bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, product
from typing import Any

from agent.firestore.protos import Document, StructuredQuery, Value
from agent.sandbox.order import NAN, NULL, sort_key, type_of
from agent.sandbox.status import invalid
from agent.sandbox.values import NAME_FIELD, FieldPath, find_value, nested_values, parse_field_path

Predicate = Callable[[Document], bool]

_Field = StructuredQuery.FieldFilter
_Unary = StructuredQuery.UnaryFilter
_Composite = StructuredQuery.CompositeFilter

_INEQUALITIES = frozenset({
    _Field.LESS_THAN, _Field.LESS_THAN_OR_EQUAL, _Field.GREATER_THAN, _Field.GREATER_THAN_OR_EQUAL,
    _Field.NOT_EQUAL, _Field.NOT_IN,
})  # fmt: skip
_RANGES: dict[int, Callable[[bytes, bytes], bool]] = {
    _Field.LESS_THAN: lambda found, given: found < given,
    _Field.LESS_THAN_OR_EQUAL: lambda found, given: found <= given,
    _Field.GREATER_THAN: lambda found, given: found > given,
    _Field.GREATER_THAN_OR_EQUAL: lambda found, given: found >= given,
}


MAX_ALTERNATIVES = 30  # of one query, as the service documents

_LISTS = frozenset({_Field.IN, _Field.NOT_IN, _Field.ARRAY_CONTAINS_ANY})

_NULL_KEY = bytes((NULL,))
_INCOMPARABLE = frozenset({_NULL_KEY, NAN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One comparison of a field: ``op`` is a FieldFilter operator, ``value`` what it compares with.

    ``unary`` says that the question is whether the value is, or isn't, null or NaN. Only then do these two compare.
    """

    path: FieldPath
    op: int
    value: Value
    unary: bool = False

    @property
    def is_inequality(self) -> bool:
        """Whether it orders the result and takes part in choosing an index as a range."""
        return self.op in _INEQUALITIES


def conditions(where: Any) -> Iterator[Condition]:
    """All comparisons in ``where``, whatever joins them; unary ones in the terms of the binary ones."""
    kind = where.WhichOneof("filter_type")
    if kind == "composite_filter":
        for part in where.composite_filter.filters:
            yield from conditions(part)
    elif kind == "field_filter":
        yield _binary(where.field_filter)
    elif kind == "unary_filter":
        yield _unary(where.unary_filter)


def conjuncts(where: Any) -> Iterator[Condition]:
    """The comparisons that every result has to satisfy: those not within an OR."""
    if where.WhichOneof("filter_type") != "composite_filter":
        yield from conditions(where)
    elif where.composite_filter.op == _Composite.AND or len(where.composite_filter.filters) == 1:
        for part in where.composite_filter.filters:
            yield from conjuncts(part)


def alternatives(where: Any) -> list[tuple[Condition, ...]]:
    """``where`` as an OR of ANDs: the comparisons of each alternative, which the service answers one by one."""
    if where.WhichOneof("filter_type") != "composite_filter":
        return [tuple(conditions(where))]
    parts = [alternatives(part) for part in where.composite_filter.filters]
    if where.composite_filter.op == _Composite.OR:
        return [alternative for part in parts for alternative in part]
    combined = list(islice(product(*parts), MAX_ALTERNATIVES + 1))
    if len(combined) > MAX_ALTERNATIVES:
        raise invalid(f"The query has more than {MAX_ALTERNATIVES} disjunctions.")
    return [tuple(chain.from_iterable(parts)) for parts in combined]


def predicate(where: Any) -> Predicate:
    """Whether a document matches ``where``.

    Raises:
        StatusError: INVALID_ARGUMENT for a filter that is not well formed.
    """
    kind = where.WhichOneof("filter_type")
    if kind == "composite_filter":
        parts = [predicate(part) for part in where.composite_filter.filters]
        if not parts:
            raise invalid("Composite filter must have at least one filter.")
        if where.composite_filter.op == _Composite.OR:
            return lambda document: any(part(document) for part in parts)
        return lambda document: all(part(document) for part in parts)
    if kind == "field_filter":
        return _matcher(_binary(where.field_filter))
    if kind == "unary_filter":
        return _matcher(_unary(where.unary_filter))
    raise invalid("Filter must have a type.")


def field_key(document: Document, path: FieldPath) -> bytes | None:
    """The sort key of the value at ``path``; ``None`` where the document lacks it."""
    if path == NAME_FIELD:
        return sort_key(Value(reference_value=document.name))
    value = find_value(document.fields, path)
    return None if value is None else sort_key(value)


def _binary(given: Any) -> Condition:
    if given.op == _Field.OPERATOR_UNSPECIFIED:
        raise invalid("Field filter must have an operator.")
    if given.op in _LISTS and not given.value.array_value.values:
        raise invalid(f"'{_Field.Operator.Name(given.op)}' requires an non-empty ArrayValue.")
    return Condition(path=parse_field_path(given.field.field_path), op=given.op, value=given.value)


def _unary(given: Any) -> Condition:
    path = parse_field_path(given.field.field_path)
    null, nan = Value(null_value=0), Value(double_value=float("nan"))
    match given.op:
        case _Unary.IS_NULL:
            return Condition(path=path, op=_Field.EQUAL, value=null, unary=True)
        case _Unary.IS_NAN:
            return Condition(path=path, op=_Field.EQUAL, value=nan, unary=True)
        case _Unary.IS_NOT_NULL:
            return Condition(path=path, op=_Field.NOT_EQUAL, value=null, unary=True)
        case _Unary.IS_NOT_NAN:
            return Condition(path=path, op=_Field.NOT_EQUAL, value=nan, unary=True)
    raise invalid("Unary filter must have an operator.")


def _matcher(condition: Condition) -> Predicate:
    path, op = condition.path, condition.op
    if op in (_Field.ARRAY_CONTAINS, _Field.ARRAY_CONTAINS_ANY):
        wanted = operands(condition)

        def contains(document: Document) -> bool:
            value = find_value(document.fields, path)
            return value is not None and any(sort_key(element) in wanted for element in nested_values(value))

        return contains
    if op == _Field.IN:
        wanted = operands(condition)
        return lambda document: field_key(document, path) in wanted
    if op == _Field.NOT_IN:
        unwanted = {sort_key(value) for value in condition.value.array_value.values}
        if _NULL_KEY in unwanted:
            return _nothing
        return lambda document: (key := field_key(document, path)) not in (None, _NULL_KEY) and key not in unwanted
    given = sort_key(condition.value)
    if given in _INCOMPARABLE and not condition.unary:
        # "== null" and "> NaN" hold for no value; "!= NaN" holds for every one, NaN included.
        if op == _Field.NOT_EQUAL and given == NAN:
            return lambda document: field_key(document, path) not in (None, _NULL_KEY)
        return _nothing
    if op == _Field.EQUAL:
        return lambda document: field_key(document, path) == given
    if op == _Field.NOT_EQUAL:
        return lambda document: field_key(document, path) not in (None, _NULL_KEY, given)
    compare = _RANGES[op]

    def in_range(document: Document) -> bool:
        key = field_key(document, path)
        # A range stays within the type of its bound, and NaN is in no range of numbers.
        return key is not None and type_of(key) == type_of(given) and key != NAN and compare(key, given)

    return in_range


def _nothing(_: Document) -> bool:
    return False


def operands(condition: Condition) -> set[bytes]:
    """The keys that an EQUAL, IN or ARRAY_CONTAINS(_ANY) condition looks for."""
    if condition.op not in _LISTS:
        return {sort_key(condition.value)}
    keys = {sort_key(value) for value in condition.value.array_value.values}
    return keys - _INCOMPARABLE if condition.op == _Field.IN else keys
