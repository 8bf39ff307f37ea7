"""Values survive decoding and encoding bit by bit."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from agent.faults import Permanent, PermanentReason
from agent.firestore import (
    Opaque,
    Timestamp,
    Vector,
    canonical,
    decode,
    decode_fields,
    encode,
    encode_fields,
)
from agent.firestore.protos import Document, Value
from tests.firestore.field_values import FIELDS, VALUES


@given(FIELDS)
def test_wire_to_python_to_wire_changes_no_byte(fields: dict[str, Any]) -> None:
    """Whatever the wire carries comes back as the same bytes, NaN, -0.0 and nanoseconds included."""
    wire = encode_fields(fields)
    assert encode_fields(decode_fields(wire)) == wire


@given(VALUES)
def test_python_to_wire_to_python_keeps_kind_and_value(value: Any) -> None:
    """1 stays an integer, 1.0 a double, an empty list a list and an empty map a map."""
    back = decode(encode(value))
    assert type(back) is type(value)
    assert encode(back) == encode(value) or _has_nan(value)


def _has_nan(value: Any) -> bool:
    return "nan" in repr(value)


def test_kinds_that_python_confuses_stay_apart() -> None:
    """True is not 1, 1 is not 1.0, 0.0 is not -0.0, and None is a value."""
    fields = {"a": True, "b": 1, "c": 1.0, "d": -0.0, "e": None, "f": math.nan, "g": 2**63 - 1}
    back = decode_fields(encode_fields(fields))
    assert back["a"] is True
    assert type(back["b"]) is int
    assert type(back["c"]) is float
    assert math.copysign(1, back["d"]) == -1
    assert "e" in back
    assert math.isnan(back["f"])
    assert back["g"] == 2**63 - 1


def test_unknown_kinds_travel_as_they_are() -> None:
    """A value of a type that Firestore may invent tomorrow survives a transform that doesn't touch it."""
    # Field 1000, length-delimited: no such kind of value exists today.
    unknown = bytes.fromhex("c23e03616263")
    document = Document()
    document.fields["new"].ParseFromString(unknown)
    document.fields["old"].integer_value = 1
    fields = decode_fields(document.SerializeToString())
    assert fields["new"] == Opaque(unknown)
    again = Document.FromString(encode_fields({**fields, "old": 2}))
    assert again.fields["new"].SerializeToString() == unknown
    assert Value.FromString(encode(fields["new"]).SerializeToString()).SerializeToString() == unknown


def test_a_map_that_only_resembles_a_vector_stays_a_map() -> None:
    """The marker with integers in it is left alone, because turning them into doubles would lose them."""
    resembling = {"__type__": "__vector__", "value": [1, 2]}
    assert decode(encode(resembling)) == resembling
    assert decode(encode({"__type__": "__vector__", "value": [1.0]})) == Vector((1.0,))


def test_datetimes_are_written_exactly_and_read_as_timestamps() -> None:
    """Microseconds are not lost to floating point."""
    moment = datetime(2025, 9, 10, 8, 0, 0, 123_457, tzinfo=UTC)
    back = decode(encode(moment))
    assert back == Timestamp.of(moment)
    assert back.datetime() == moment


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, object(), datetime(2025, 1, 1)])  # noqa: DTZ001  # naive on purpose
def test_what_has_no_counterpart_is_refused_with_the_field(value: object) -> None:
    """The error names the field, so that a transform's author finds the line."""
    with pytest.raises(Permanent, match="field 'age'") as caught:
        encode_fields({"age": value})
    assert caught.value.reason is PermanentReason.INVALID


@given(FIELDS)
def test_canonical_form_does_not_depend_on_the_order_of_fields(fields: dict[str, Any]) -> None:
    """Servers send maps in any order; equal contents have equal canonical bytes."""
    reversed_entries = b"".join(
        Document(fields={key: encode(fields[key])}).SerializeToString() for key in reversed(list(fields))
    )
    assert canonical(reversed_entries) == encode_fields(fields)
