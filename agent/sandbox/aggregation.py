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
    paths = {_path(getattr(a, kind)) for a in aggregations if (kind := a.WhichOneof("operator")) in ("sum", "avg")}
    numbers: dict[FieldPath, list[int | float]] = {path: [] for path in paths}
    counted = _collect(query, numbers, view) if numbers else None
    for position, aggregation in enumerate(aggregations, start=1):
        alias = aggregation.alias or f"field_{position}"
        kind = aggregation.WhichOneof("operator")
        if kind == "count":
            up_to = aggregation.count.up_to.value if aggregation.count.HasField("up_to") else None
            if counted is None:
                fields[alias].integer_value = query.count(view, up_to)
            else:
                fields[alias].integer_value = counted if up_to is None else min(counted, up_to)
        elif kind == "sum":
            fields[alias].CopyFrom(_total(numbers[_path(aggregation.sum)]))
        elif kind == "avg":
            fields[alias].CopyFrom(_average(numbers[_path(aggregation.avg)]))
        else:
            raise invalid("Aggregation must have an operator.")
    return reply


def _path(operator: Any) -> FieldPath:
    return parse_field_path(operator.field.field_path)


def _collect(query: Query, numbers: dict[FieldPath, list[int | float]], view: View) -> int:
    """Gather the numbers at each path; how many documents took part: those that have all the fields.

    A field that is no number counts as a document but adds nothing, as on the service.
    """
    counted = 0
    for document in query.documents(view):
        found = [(taken, find_value(document.fields, path)) for path, taken in numbers.items()]
        if any(value is None for _, value in found):
            continue
        counted += 1
        for taken, value in found:
            if value is not None and value.WhichOneof("value_type") in ("integer_value", "double_value"):
                taken.append(number_of(value))
    return counted


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
