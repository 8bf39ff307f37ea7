"""Field values as the bytes that they are on the wire: what is short is read and written by hand.

Texts, numbers, booleans and null are most of what documents hold. By protobuf's objects each costs 0.8-1.1 us (parse,
ask for the kind, take the value), by hand 0.1-0.4. Everything else, and every form that a server would not choose
itself (a varint longer than it need be), is left to protobuf: :mod:`agent.firestore.values` says what is what.

A value has one canonical form: what protobuf writes when it is asked to be deterministic. Called by
:mod:`agent.firestore.fields` and :mod:`agent.firestore.patches`.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from agent.firestore.envelope import MapEnvelope
from agent.firestore.protobuf import delimited, varint
from agent.firestore.protos import Value
from agent.firestore.values import MAX_INTEGER, decode, encode

# Tags of https://github.com/googleapis/googleapis/blob/master/google/firestore/v1/document.proto: number << 3 | type.
_BOOLEAN, _INTEGER, _NULL = b"\x08", b"\x10", b"\x58"
_DOUBLE, _MAP, _TEXT = b"\x19", b"\x32", b"\x8a\x01"

_FALSE, _TRUE, _NONE = _BOOLEAN + b"\0", _BOOLEAN + b"\1", _NULL + b"\0"
_SHORT: Final[dict[bytes, Any]] = {
    _FALSE: False,
    _TRUE: True,
    _NONE: None,
    **{_INTEGER + varint(number): number for number in range(0x80)},
}
_FLOAT = struct.Struct("<d")
_OTHER: Final = object()


def decode_value(data: bytes) -> Any:
    """The Python value of a serialised ``Value``.

    Raises:
        google.protobuf.message.DecodeError: it is not one.
    """
    value = _scalar(data)
    return decode(Value.FromString(data)) if value is _OTHER else value


def canonical_value(data: bytes) -> bytes:
    """A serialised ``Value`` in the one form that equal values share.

    Raises:
        google.protobuf.message.DecodeError: it is not one.
    """
    if _scalar(data) is not _OTHER:
        return data
    canonical: bytes = Value.FromString(data).SerializeToString(deterministic=True)
    return canonical


def is_same(data: bytes, canonical: bytes) -> bool:
    """Whether ``data``, in whatever form, is the value that ``canonical`` is, bit for bit: 0.0 is not -0.0, NaN is NaN.

    Raises:
        google.protobuf.message.DecodeError: it is none.
    """
    return data == canonical or canonical_value(data) == canonical


def encode_value(value: Any) -> bytes:
    """The ``Value`` of a Python value, serialised, in canonical form.

    Raises:
        Permanent: see :func:`agent.firestore.values.encode`.
    """
    kind = type(value)
    if kind is str:
        return delimited(_TEXT, value.encode())
    if kind is int:
        if 0 <= value <= MAX_INTEGER:
            return _INTEGER + varint(value)
    elif kind is float:
        return _DOUBLE + _FLOAT.pack(value)
    elif kind is dict:
        made = MapEnvelope()
        fields = made.fields
        for key, element in value.items():
            fields[key] = encode_value(element)
        return delimited(_MAP, made.SerializeToString(deterministic=True))
    elif kind is bool:
        return _TRUE if value else _FALSE
    elif value is None:
        return _NONE
    encoded: bytes = encode(value).SerializeToString(deterministic=True)
    return encoded


def _scalar(data: bytes) -> Any:
    """The value, if it is one that is short to read and in canonical form."""
    size = len(data)
    if size == 2:
        return _SHORT.get(data, _OTHER)
    if size < 2:
        return _OTHER
    first = data[0]
    if first == 0x8A:
        return _text(data, size)
    if first == 0x10:
        return _integer(data, size)
    if first == 0x19 and size == 9:
        return _FLOAT.unpack_from(data, 1)[0]
    return _OTHER


def _text(data: bytes, size: int) -> Any:
    length, begin = data[2], 3
    if length >= 0x80:
        if size < 0x83 or not 0 < data[3] < 0x80:  # cut off, or longer than 16 KiB, or not in canonical form
            return _OTHER
        length, begin = length & 0x7F | data[3] << 7, 4
    if data[1] != 0x01 or size != begin + length:
        return _OTHER
    try:
        return data[begin:].decode()
    except UnicodeDecodeError:
        return _OTHER  # protobuf says it in its own words


def _integer(data: bytes, size: int) -> Any:
    """Up to nine bytes of seven bits, the lowest first; more are a negative number."""
    value = shift = 0
    for byte in data[1:-1]:
        if byte < 0x80:
            return _OTHER
        value |= (byte & 0x7F) << shift
        shift += 7
    last = data[-1]
    return value | last << shift if 0 < last < 0x80 and size <= 10 else _OTHER
