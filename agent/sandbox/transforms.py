"""Field transforms: values that the server works out from what is stored.

Called by the write path. Pure: a document, transforms and the time of the request in, the results out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from agent.firestore.protos import ArrayValue, Document, Value
from agent.sandbox.order import sort_key
from agent.sandbox.status import invalid
from agent.sandbox.values import find_value, nested_values, parse_field_path, put_value

_INT64_MAX = 2**63 - 1
_INT64_MIN = -(2**63)
_NUMBERS = ("integer_value", "double_value")


def apply_transforms(document: Document, transforms: Iterable[Any], time: int) -> list[Value]:
    """Apply ``transforms`` to ``document`` in order; what each resulted in, as WriteResult reports it.

    Args:
        time: of the request, microseconds.

    Raises:
        StatusError: INVALID_ARGUMENT for an operand of the wrong kind.
    """
    results = []
    for transform in transforms:
        path = parse_field_path(transform.field_path)
        value, result = _transformed(find_value(document.fields, path), transform, time)
        put_value(document.fields, path, value)
        results.append(result)
    return results


def _transformed(old: Value | None, transform: Any, time: int) -> tuple[Value, Value]:
    """The field's new value, and the transform's reported result (null for array transforms)."""
    kind = transform.WhichOneof("transform_type")
    if kind == "set_to_server_value":
        value = Value()
        # The service stores request times in milliseconds.
        value.timestamp_value.FromMilliseconds(time // 1000)
        return value, value
    if kind in ("append_missing_elements", "remove_all_from_array"):
        elements = list(nested_values(old)) if old is not None else []
        given = getattr(transform, kind).values
        if kind == "append_missing_elements":
            present = {sort_key(element) for element in elements}
            for element in given:
                if sort_key(element) not in present:
                    present.add(sort_key(element))
                    elements.append(element)
        else:
            unwanted = {sort_key(element) for element in given}
            elements = [element for element in elements if sort_key(element) not in unwanted]
        return Value(array_value=ArrayValue(values=elements)), Value(null_value=0)
    if kind not in ("increment", "maximum", "minimum"):
        raise invalid("Transform must have an operation.")
    operand = getattr(transform, kind)
    if operand.WhichOneof("value_type") not in _NUMBERS:
        raise invalid("Input must be int64 or double.")
    if old is None or old.WhichOneof("value_type") not in _NUMBERS:
        return operand, operand
    value = _sum(old, operand) if kind == "increment" else _extreme(old, operand, largest=kind == "maximum")
    return value, value


def number_of(value: Value) -> int | float:
    """An integer or double value as a Python number."""
    if value.WhichOneof("value_type") == "integer_value":
        return int(value.integer_value)
    return float(value.double_value)


def _sum(old: Value, operand: Value) -> Value:
    left, right = number_of(old), number_of(operand)
    if isinstance(left, int) and isinstance(right, int):
        # The service saturates; it does not wrap around.
        return Value(integer_value=min(max(left + right, _INT64_MIN), _INT64_MAX))
    return Value(double_value=float(left) + float(right))


def _extreme(old: Value, operand: Value, *, largest: bool) -> Value:
    for value in (old, operand):
        if math.isnan(number_of(value)):
            return value
    if sort_key(old) == sort_key(operand):
        return old  # 3 and 3.0 are equal: the field keeps its type
    return max(old, operand, key=sort_key) if largest else min(old, operand, key=sort_key)
