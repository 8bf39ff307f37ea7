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

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.faults import Permanent, PermanentReason
from agent.firestore.protos import NULL_VALUE, Document, Value

_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1


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
    match kind:
        case "string_value" | "integer_value" | "boolean_value" | "double_value" | "bytes_value":
            return getattr(value, kind)
        case "null_value":
            return None
        case "map_value":
            return _decode_map(value.map_value.fields)
        case "array_value":
            return [decode(element) for element in value.array_value.values]
        case "timestamp_value":
            return Timestamp(value.timestamp_value.seconds * _NS + value.timestamp_value.nanos)
        case "reference_value":
            return Reference(value.reference_value)
        case "geo_point_value":
            return GeoPoint(value.geo_point_value.latitude, value.geo_point_value.longitude)
        case _:
            return Opaque(value.SerializeToString(deterministic=True))


def encode(value: Any) -> Value:
    """The Firestore value of ``value``.

    Raises:
        Permanent: of a type without a counterpart, an integer beyond 64 bits, or a naive ``datetime``.
    """
    made = Value()
    _encode_into(made, value)
    return made


def decode_fields(fields: bytes) -> dict[str, Any]:
    """The fields of a document, as :attr:`RawDocument.fields` or a whole ``Document`` message carries them."""
    document = Document.FromString(fields)
    return {key: decode(document.fields[key]) for key in sorted(document.fields)}


def encode_fields(fields: Mapping[str, Any]) -> bytes:
    """The other way, in canonical form.

    Raises:
        Permanent: see :func:`encode`; the message names the field.
    """
    document = Document()
    for key, value in fields.items():
        try:
            _encode_into(document.fields[key], value)
        except Permanent as error:
            raise Permanent(PermanentReason.INVALID, f"field {key!r}: {error.message}", hint=error.hint) from error
    return document.SerializeToString(deterministic=True)


def _decode_map(fields: Mapping[str, Value]) -> Any:
    if len(fields) == 2 and "__type__" in fields and "value" in fields:
        marker, values = fields["__type__"], fields["value"]
        if marker.string_value == "__vector__" and values.WhichOneof("value_type") == "array_value":
            elements = values.array_value.values
            # A vector of anything but doubles is not a vector (yet): left as the map it is on the wire.
            if all(element.WhichOneof("value_type") == "double_value" for element in elements):
                return Vector(tuple(element.double_value for element in elements))
    return {key: decode(fields[key]) for key in sorted(fields)}


def _encode_into(made: Value, value: Any) -> None:
    match value:
        case None:
            made.null_value = NULL_VALUE
        case bool():  # before int: True is an int in Python
            made.boolean_value = value
        case int():
            if not _MIN_INTEGER <= value <= _MAX_INTEGER:
                raise Permanent(PermanentReason.INVALID, f"the integer {value} does not fit into 64 bits")
            made.integer_value = value
        case float():
            made.double_value = value
        case str():
            made.string_value = value
        case bytes():
            made.bytes_value = value
        case Timestamp():
            made.timestamp_value.seconds, made.timestamp_value.nanos = divmod(value.nanoseconds, _NS)
            made.timestamp_value.SetInParent()
        case datetime():
            if value.tzinfo is None:
                raise Permanent(PermanentReason.INVALID, f"the time {value} has no time zone")
            _encode_into(made, Timestamp.of(value))
        case Mapping():
            made.map_value.SetInParent()
            for key, element in value.items():
                _encode_into(made.map_value.fields[key], element)
        case list() | tuple():
            made.array_value.SetInParent()
            for element in value:
                _encode_into(made.array_value.values.add(), element)
        case Reference():
            made.reference_value = value.name
        case GeoPoint():
            made.geo_point_value.SetInParent()
            made.geo_point_value.latitude, made.geo_point_value.longitude = value.latitude, value.longitude
        case Vector():
            _encode_into(made, {"__type__": "__vector__", "value": list(value.values)})
        case Opaque():
            made.ParseFromString(value.raw)
        case _:
            raise Permanent(
                PermanentReason.INVALID,
                f"a value of type {type(value).__name__} has no counterpart in Firestore",
            )
