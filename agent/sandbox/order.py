"""Firestore's order of values, as bytes.

:func:`sort_key` turns a value into bytes whose plain comparison is Firestore's order and whose equality is
Firestore's equality (1 equals 1.0). Filters, sorting, cursors, array transforms and field indexes all compare these
bytes, so they can't disagree. The order of types: null, boolean, number, timestamp, string, bytes, reference,
geopoint, array, vector, map.
"""

from __future__ import annotations

import math
import struct

from agent.firestore.protos import MapValue, Value
from agent.sandbox.keys import path_key

NULL, BOOLEAN, NUMBER, TIMESTAMP, STRING, BYTES, REFERENCE, GEOPOINT, ARRAY, VECTOR, MAP = range(1, 12)

_END = b"\x00"  # closes a list; below every type tag, so a prefix comes first

_DOUBLE = struct.Struct(">d")
_TWO_63 = 2**63


def sort_key(value: Value) -> bytes:
    """``value`` as bytes that compare as Firestore compares values."""
    kind = value.WhichOneof("value_type")
    match kind:
        case "null_value" | None:
            return bytes((NULL,))
        case "boolean_value":
            return bytes((BOOLEAN, value.boolean_value))
        case "integer_value":
            return _integer(value.integer_value)
        case "double_value":
            return _double(value.double_value)
        case "timestamp_value":
            moment = value.timestamp_value
            return bytes((TIMESTAMP,)) + struct.pack(">QI", moment.seconds + _TWO_63, moment.nanos)
        case "string_value":
            return _text(STRING, value.string_value.encode())
        case "bytes_value":
            return _text(BYTES, value.bytes_value)
        case "reference_value":
            return bytes((REFERENCE,)) + path_key(value.reference_value.split("/")) + _END
        case "geo_point_value":
            point = value.geo_point_value
            return bytes((GEOPOINT,)) + _ordered(point.latitude) + _ordered(point.longitude)
        case "array_value":
            return bytes((ARRAY,)) + b"".join(map(sort_key, value.array_value.values)) + _END
        case _:
            return _map(value.map_value)


def type_of(key: bytes) -> int:
    """The type tag of a :func:`sort_key`; range filters match within one type only."""
    return key[0]


NAN = bytes((NUMBER, 0))


def _integer(number: int) -> bytes:
    # The nearest double, then what it is off by: exact beside doubles, beyond 2**53 too.
    nearest = float(number)
    return bytes((NUMBER, 1)) + _ordered(nearest) + struct.pack(">H", number - int(nearest) + 0x8000)


def _double(number: float) -> bytes:
    if math.isnan(number):
        return NAN
    return bytes((NUMBER, 1)) + _ordered(number) + b"\x80\x00"


def _ordered(number: float) -> bytes:
    """A double as eight bytes in numeric order; -0.0 equals 0.0."""
    raw = _DOUBLE.pack(number + 0.0)
    if raw[0] & 0x80:
        return bytes(byte ^ 0xFF for byte in raw)
    return bytes((raw[0] | 0x80,)) + raw[1:]


def _text(tag: int, raw: bytes) -> bytes:
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", b"\x00\xff")
    return bytes((tag,)) + raw + b"\x00\x01"


def _map(value: MapValue) -> bytes:
    fields = value.fields
    if "__type__" in fields and fields["__type__"].string_value == "__vector__":
        elements = fields["value"].array_value.values
        keys = b"".join(map(sort_key, elements))
        return bytes((VECTOR,)) + struct.pack(">I", len(elements)) + keys + _END
    pairs = sorted((name.encode(), name) for name in fields)
    return bytes((MAP,)) + b"".join(_text(STRING, raw) + sort_key(fields[name]) for raw, name in pairs) + _END
