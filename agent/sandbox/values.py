"""Field paths, masks, and what a document may contain.

Called by the write path (masks, transforms, limits) and by queries (reading a field, projections).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping

from agent.firestore.protos import Document, Value
from agent.sandbox.status import invalid

MAX_DOCUMENT_BYTES = 1_048_576
MAX_FIELD_DEPTH = 20
MAX_FIELD_NAME_BYTES = 1_500
_MAX_VALUE_BYTES = MAX_DOCUMENT_BYTES - 89

_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z")
_SEGMENT = re.compile(r"`((?:[^`\\]|\\.)*)`|([^`.~*/\[\]]+)")
_RESERVED = re.compile(r"__.*__\Z", re.DOTALL)

NAME_FIELD = ("__name__",)

FieldPath = tuple[str, ...]


def parse_field_path(text: str) -> FieldPath:
    r"""``a.b.`odd \` name``` as its segments.

    Raises:
        StatusError: INVALID_ARGUMENT if it is not a field path.
    """
    if _SIMPLE.match(text):
        return (text,)
    segments = []
    position = 0
    while True:
        found = _SEGMENT.match(text, position)
        if not found:
            raise invalid(f'Invalid property path "{text}".')
        quoted, plain = found.groups()
        segments.append(re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain)
        position = found.end()
        if position == len(text):
            return tuple(segments)
        if text[position] != ".":
            raise invalid(f'Invalid property path "{text}".')
        position += 1


def find_value(fields: Mapping[str, Value], path: FieldPath) -> Value | None:
    """The value at ``path``, if it is there."""
    for segment in path[:-1]:
        if segment not in fields:
            return None
        fields = fields[segment].map_value.fields
    return fields.get(path[-1])


def put_value(fields: MutableMapping[str, Value], path: FieldPath, value: Value) -> None:
    """Set the value at ``path``; what is on the way and isn't a map is replaced by one."""
    for segment in path[:-1]:
        inner = fields[segment]
        inner.map_value.SetInParent()
        fields = inner.map_value.fields
    fields[path[-1]].CopyFrom(value)


def drop_value(fields: MutableMapping[str, Value], path: FieldPath) -> None:
    """Remove the value at ``path``, if it is there."""
    for segment in path[:-1]:
        if segment not in fields or fields[segment].WhichOneof("value_type") != "map_value":
            return
        fields = fields[segment].map_value.fields
    if path[-1] in fields:
        del fields[path[-1]]


def merge_masked(target: Document, source: Document, paths: Iterable[FieldPath]) -> None:
    """Give ``target`` the fields of ``source`` at ``paths``; a path that ``source`` lacks is deleted."""
    for path in paths:
        value = find_value(source.fields, path)
        if value is None:
            drop_value(target.fields, path)
        else:
            put_value(target.fields, path, value)


def project(document: Document, paths: Iterable[FieldPath]) -> Document:
    """``document`` with the fields at ``paths`` alone."""
    result = Document(name=document.name, create_time=document.create_time, update_time=document.update_time)
    for path in paths:
        value = find_value(document.fields, path)
        if value is not None and path != NAME_FIELD:
            put_value(result.fields, path, value)
    return result


def check_fields(document: Document) -> None:
    """Refuse what the service refuses to store: reserved names, names too long, values nested too deep.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    for name, value in document.fields.items():
        _check_name(name)
        _check_value(value, name, 1)


def _check_name(name: str) -> None:
    if not name:
        raise invalid("The property.name is the empty string.")
    if name.startswith("__") and _RESERVED.match(name):
        raise invalid(f"field name {name} is reserved")
    if len(name) > MAX_FIELD_NAME_BYTES // 4 and len(name.encode()) > MAX_FIELD_NAME_BYTES:
        raise invalid(f"The property.name is longer than {MAX_FIELD_NAME_BYTES} bytes.")


def _check_value(value: Value, name: str, depth: int) -> None:
    kind = value.WhichOneof("value_type")
    if kind in ("map_value", "array_value") and depth > MAX_FIELD_DEPTH:
        raise invalid(f"Property {name} contains an invalid nested entity.")
    if kind == "map_value":
        fields = value.map_value.fields
        is_typed = "__type__" in fields  # how vectors and later types are written
        for inner, content in fields.items():
            if not is_typed:
                _check_name(inner)
            _check_value(content, name, depth + 1)
    elif kind == "array_value":
        for element in value.array_value.values:
            if element.WhichOneof("value_type") == "array_value":
                raise invalid("Cannot convert an array value in an array value.")
            _check_value(element, name, depth + 1)
    elif kind in ("string_value", "bytes_value"):
        content = getattr(value, kind)
        if len(content) > _MAX_VALUE_BYTES // 4 and len(_encoded(content)) > _MAX_VALUE_BYTES:
            raise invalid(f'The value of property "{name}" is longer than {_MAX_VALUE_BYTES} bytes.')
    elif kind is None:
        raise invalid("Cannot convert firestore.v1.Value with type unset.")


def _encoded(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def document_size(document: Document) -> int:
    """The document's size by the service's own rule (https://firebase.google.com/docs/firestore/storage-size)."""
    segments = document.name.split("/")[5:]
    return sum(len(s.encode()) + 1 for s in segments) + 16 + _fields_size(document.fields) + 32


def _fields_size(fields: Mapping[str, Value]) -> int:
    return sum(len(name.encode()) + 1 + _value_size(value) for name, value in fields.items())


def _value_size(value: Value) -> int:
    match value.WhichOneof("value_type"):
        case "string_value":
            return len(value.string_value.encode()) + 1
        case "bytes_value":
            return len(value.bytes_value)
        case "reference_value":
            return sum(len(s.encode()) + 1 for s in value.reference_value.split("/")[5:]) + 16
        case "geo_point_value":
            return 16
        case "array_value":
            return sum(map(_value_size, value.array_value.values))
        case "map_value":
            return _fields_size(value.map_value.fields)
        case "null_value" | "boolean_value" | None:
            return 1
        case _:
            return 8


def nested_values(value: Value) -> Iterator[Value]:
    """The elements of an array value; nothing for any other."""
    if value.WhichOneof("value_type") == "array_value":
        yield from value.array_value.values
