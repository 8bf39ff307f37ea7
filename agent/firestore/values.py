"""Firestore values as Python values, and back without a bit lost.

For code that looks into documents: a migration's transform, the sample dataset, the maintenance flag. Backups never
come here. ``encode(decode(value))`` is ``value`` for every value; kinds that this module doesn't know travel as
:class:`Opaque`.

=============  ==========================================================
Firestore      Python
=============  ==========================================================
null           ``None``
boolean        ``bool``
integer        ``int`` (64 bit)
double         ``float`` (NaN, infinities and -0.0 included)
timestamp      :class:`Timestamp`; ``datetime`` is accepted for writing
string, bytes  ``str``, ``bytes``
reference      :class:`Reference`
geopoint       :class:`GeoPoint`
array, map     ``list``, ``dict``
vector         :class:`Vector`
anything else  :class:`Opaque`
=============  ==========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.faults import Permanent, PermanentReason
from agent.firestore.protos import NULL_VALUE, Document, Value

_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """A moment with the precision of the wire, which ``datetime`` hasn't.

    Args:
        nanoseconds: since the epoch; may be negative.
    """

    nanoseconds: int

    @classmethod
    def of(cls, moment: datetime) -> Timestamp:
        """``moment`` must be aware."""
        return cls((moment - _EPOCH) // timedelta(microseconds=1) * 1000)

    def datetime(self) -> datetime:
        """In UTC, cut to microseconds."""
        return _EPOCH + timedelta(microseconds=self.nanoseconds // 1000)


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference to a document, by its full name."""

    name: str


@dataclass(frozen=True, slots=True)
class GeoPoint:
    """Degrees."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Vector:
    """An embedding; on the wire a map of a marker and an array of doubles."""

    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value of a kind that this program doesn't know: the serialised ``Value``."""

    raw: bytes


def decode(value: Value) -> Any:
    """``value`` as in the table above."""
    kind = value.WhichOneof("value_type")
    if kind in _PLAIN:
        return getattr(value, kind)
    reader = _READERS.get(kind)
    return Opaque(value.SerializeToString(deterministic=True)) if reader is None else reader(value)


def encode(value: Any) -> Value:
    """The Firestore value of ``value``.

    Raises:
        Permanent: of a type without a counterpart, an integer beyond 64 bits, or a naive ``datetime``.
    """
    made = Value()
    encode_into(made, value)
    return made


def encode_into(made: Value, value: Any) -> None:
    """:func:`encode` into an empty ``Value`` that is part of a message already.

    Raises:
        Permanent: see :func:`encode`.
    """
    (_WRITERS.get(type(value)) or _writer_of(value))(made, value)


def decode_fields(fields: bytes) -> dict[str, Any]:
    """The fields of a document, as :attr:`RawDocument.fields` or a whole ``Document`` message carries them."""
    return _decode_entries(Document.FromString(fields).fields)


def encode_fields(fields: Mapping[str, Any]) -> bytes:
    """The other way, in canonical form.

    Raises:
        Permanent: see :func:`encode`; the message names the field.
    """
    document = Document()
    for key, value in fields.items():
        try:
            encode_into(document.fields[key], value)
        except Permanent as error:
            raise Permanent(PermanentReason.INVALID, f"field {key!r}: {error.message}", hint=error.hint) from error
    return document.SerializeToString(deterministic=True)


def _decode_entries(fields: Mapping[str, Value]) -> dict[str, Any]:
    return {key: decode(fields[key]) for key in sorted(fields)}


def _decode_map(value: Value) -> Any:
    fields = value.map_value.fields
    if len(fields) == 2 and "__type__" in fields and "value" in fields:
        marker, values = fields["__type__"], fields["value"]
        if marker.string_value == "__vector__" and values.WhichOneof("value_type") == "array_value":
            elements = values.array_value.values
            # A vector of anything but doubles is not a vector (yet): left as the map it is on the wire.
            if all(element.WhichOneof("value_type") == "double_value" for element in elements):
                return Vector(tuple(element.double_value for element in elements))
    return _decode_entries(fields)


def _decode_timestamp(value: Value) -> Timestamp:
    moment = value.timestamp_value
    return Timestamp(moment.seconds * _NS + moment.nanos)


def _decode_point(value: Value) -> GeoPoint:
    point = value.geo_point_value
    return GeoPoint(point.latitude, point.longitude)


_PLAIN = frozenset(("string_value", "integer_value", "boolean_value", "double_value", "bytes_value"))
_READERS: Mapping[str, Callable[[Value], Any]] = {
    "null_value": lambda _: None,
    "map_value": _decode_map,
    "array_value": lambda value: [decode(element) for element in value.array_value.values],
    "timestamp_value": _decode_timestamp,
    "reference_value": lambda value: Reference(value.reference_value),
    "geo_point_value": _decode_point,
}


def _write_null(made: Value, _: None) -> None:
    made.null_value = NULL_VALUE


def _write_boolean(made: Value, value: bool) -> None:
    made.boolean_value = value


def _write_integer(made: Value, value: int) -> None:
    if not _MIN_INTEGER <= value <= MAX_INTEGER:
        raise Permanent(PermanentReason.INVALID, f"the integer {value} does not fit into 64 bits")
    made.integer_value = value


def _write_double(made: Value, value: float) -> None:
    made.double_value = value


def _write_string(made: Value, value: str) -> None:
    made.string_value = value


def _write_bytes(made: Value, value: bytes) -> None:
    made.bytes_value = value


def _write_timestamp(made: Value, value: Timestamp) -> None:
    moment = made.timestamp_value
    moment.seconds, moment.nanos = divmod(value.nanoseconds, _NS)
    moment.SetInParent()


def _write_datetime(made: Value, value: datetime) -> None:
    if value.tzinfo is None:
        raise Permanent(PermanentReason.INVALID, f"the time {value} has no time zone")
    _write_timestamp(made, Timestamp.of(value))


def _write_map(made: Value, value: Mapping[str, Any]) -> None:
    made.map_value.SetInParent()
    fields = made.map_value.fields
    for key, element in value.items():
        encode_into(fields[key], element)


def _write_array(made: Value, value: Sequence[Any]) -> None:
    made.array_value.SetInParent()
    add = made.array_value.values.add
    for element in value:
        encode_into(add(), element)


def _write_reference(made: Value, value: Reference) -> None:
    made.reference_value = value.name


def _write_point(made: Value, value: GeoPoint) -> None:
    point = made.geo_point_value
    point.SetInParent()
    point.latitude, point.longitude = value.latitude, value.longitude


def _write_vector(made: Value, value: Vector) -> None:
    _write_map(made, {"__type__": "__vector__", "value": list(value.values)})


def _write_opaque(made: Value, value: Opaque) -> None:
    made.ParseFromString(value.raw)


# By exact type, which is what values nearly always have; subclasses (an IntEnum, an OrderedDict, a named tuple) are
# found by trying these in order, bool before int because True is an int in Python.
_WRITERS: Mapping[type, Callable[[Value, Any], None]] = {
    type(None): _write_null,
    bool: _write_boolean,
    int: _write_integer,
    float: _write_double,
    str: _write_string,
    bytes: _write_bytes,
    Timestamp: _write_timestamp,
    datetime: _write_datetime,
    dict: _write_map,
    Mapping: _write_map,
    list: _write_array,
    tuple: _write_array,
    Reference: _write_reference,
    GeoPoint: _write_point,
    Vector: _write_vector,
    Opaque: _write_opaque,
}


def _writer_of(value: Any) -> Callable[[Value, Any], None]:
    for kind, writer in _WRITERS.items():
        if isinstance(value, kind):
            return writer
    raise Permanent(
        PermanentReason.INVALID,
        f"a value of type {type(value).__name__} has no counterpart in Firestore",
    )
