"""Count, sum and average over a query's results.

Called by the server for RunAggregationQuery.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agent.firestore.protos import RunAggregationQueryResponse, Value
from agent.sandbox.query import Query
from agent.sandbox.status import invalid
from agent.sandbox.transforms import number_of
from agent.sandbox.values import FieldPath, find_value, parse_field_path
from agent.sandbox.view import View

_INT64 = range(-(2**63), 2**63)


def aggregate(query: Query, aggregations: Sequence[Any], view: View) -> RunAggregationQueryResponse:
    """The reply with every aggregation under its alias; the caller adds the read time.

    Raises:
        StatusError: INVALID_ARGUMENT for no aggregation, more than five, or one without an operator.
    """
    if not 1 <= len(aggregations) <= 5:
        raise invalid("An aggregation query takes one to five aggregations.")
    reply = RunAggregationQueryResponse()
    fields = reply.result.aggregate_fields
    numbers = _numbers(query, aggregations, view)
    for position, aggregation in enumerate(aggregations, start=1):
        alias = aggregation.alias or f"field_{position}"
        kind = aggregation.WhichOneof("operator")
        if kind == "count":
            up_to = aggregation.count.up_to.value if aggregation.count.HasField("up_to") else None
            fields[alias].integer_value = query.count(view, up_to)
        elif kind == "sum":
            fields[alias].CopyFrom(_total(numbers[_path(aggregation.sum)]))
        elif kind == "avg":
            fields[alias].CopyFrom(_average(numbers[_path(aggregation.avg)]))
        else:
            raise invalid("Aggregation must have an operator.")
    return reply


def _path(operator: Any) -> FieldPath:
    return parse_field_path(operator.field.field_path)


def _numbers(query: Query, aggregations: Sequence[Any], view: View) -> dict[FieldPath, list[int | float]]:
    """The numeric values of every field that is summed or averaged; other values don't take part."""
    found: dict[FieldPath, list[int | float]] = {
        _path(getattr(aggregation, kind)): []
        for aggregation in aggregations
        if (kind := aggregation.WhichOneof("operator")) in ("sum", "avg")
    }
    if found:
        for document in query.documents(view):
            for path, numbers in found.items():
                value = find_value(document.fields, path)
                if value is not None and value.WhichOneof("value_type") in ("integer_value", "double_value"):
                    numbers.append(number_of(value))
    return found


def _total(numbers: Sequence[int | float]) -> Value:
    if all(isinstance(number, int) for number in numbers) and sum(numbers) in _INT64:
        return Value(integer_value=int(sum(numbers)))
    return Value(double_value=_float_sum(numbers))


def _average(numbers: Sequence[int | float]) -> Value:
    if not numbers:
        return Value(null_value=0)
    return Value(double_value=_float_sum(numbers) / len(numbers))


def _float_sum(numbers: Sequence[int | float]) -> float:
    floats = [float(number) for number in numbers]
    try:
        return math.fsum(floats)
    except (OverflowError, ValueError):  # infinities, or a sum beyond the doubles
        return sum(floats)
