"""Values compare as Firestore compares them."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from agent.firestore.protos import ArrayValue, LatLng, MapValue, Timestamp, Value
from agent.sandbox.order import sort_key

_numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.integers(2**53 - 3, 2**53 + 3))


def _number(number: float) -> Value:
    return Value(integer_value=number) if isinstance(number, int) else Value(double_value=number)


@given(_numbers, _numbers)
def test_integers_and_doubles_share_one_exact_order(left: float, right: float) -> None:
    """An int64 and a double compare by exact value, also where doubles can't hold every integer."""
    assert (sort_key(_number(left)) < sort_key(_number(right))) == (left < right)
    assert (sort_key(_number(left)) == sort_key(_number(right))) == (left == right)


@given(st.text(), st.text())
def test_strings_compare_by_utf8(left: str, right: str) -> None:
    """Strings order by their UTF-8 bytes, not by UTF-16 units or locale."""
    try:
        expected = left.encode() < right.encode()
    except UnicodeEncodeError:  # a lone surrogate is no string to Firestore
        return
    assert (sort_key(Value(string_value=left)) < sort_key(Value(string_value=right))) == expected


def test_types_come_in_the_order_of_the_service() -> None:
    """A list with one value of each type, and the traps within types, is sorted already."""
    vector = MapValue(fields={"__type__": Value(string_value="__vector__"), "value": Value(array_value=ArrayValue())})
    values = [
        Value(null_value=0),
        Value(boolean_value=False),
        Value(boolean_value=True),
        Value(double_value=math.nan),
        Value(double_value=-math.inf),
        Value(integer_value=-1),
        Value(double_value=-0.0),
        Value(double_value=math.inf),
        Value(timestamp_value=Timestamp(seconds=-5)),
        Value(timestamp_value=Timestamp(seconds=5, nanos=1)),
        Value(string_value=""),
        Value(string_value="a"),
        Value(string_value="a\0"),
        Value(string_value="ab"),
        Value(bytes_value=b""),
        Value(reference_value="projects/p/databases/d/documents/a/b"),
        Value(reference_value="projects/p/databases/d/documents/a/b/c/d"),
        Value(reference_value="projects/p/databases/d/documents/a/bb"),
        Value(geo_point_value=LatLng(latitude=-1, longitude=5)),
        Value(geo_point_value=LatLng(latitude=1, longitude=-5)),
        Value(array_value=ArrayValue()),
        Value(array_value=ArrayValue(values=[Value(integer_value=1)])),
        Value(array_value=ArrayValue(values=[Value(integer_value=1), Value(null_value=0)])),
        Value(map_value=vector),
        Value(map_value=MapValue()),
        Value(map_value=MapValue(fields={"a": Value(integer_value=2)})),
        Value(map_value=MapValue(fields={"a": Value(integer_value=2), "b": Value(null_value=0)})),
        Value(map_value=MapValue(fields={"b": Value(null_value=0)})),
    ]
    backwards = values[::-1]
    assert sorted(backwards, key=sort_key) == values


def test_minus_zero_equals_zero_and_one_equals_one_point_zero() -> None:
    """Equality is Firestore's: by number, not by type or sign of zero."""
    assert sort_key(Value(double_value=-0.0)) == sort_key(Value(integer_value=0))
    assert sort_key(Value(double_value=1.0)) == sort_key(Value(integer_value=1))
