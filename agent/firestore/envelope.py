"""The outer messages of the protocol with their inner messages left as bytes.

A backup has no business decoding a document, and a restore none encoding one. These message classes have the same
field numbers as ``google.firestore.v1``'s, but declare the documents (or a document's fields) as ``bytes``, which is
the same on the wire; protobuf's C parser then hands the inner message over uncopied and unread. Fields that a newer
server may add are kept.

``FieldsEnvelope`` is a ``Document`` and ``MapEnvelope`` a ``MapValue`` with each field's value as bytes, for whoever
looks at a few fields and leaves the others alone: it takes half as long to parse, and no value needs an object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from google.protobuf.message import Message

    class _Envelope(Message):
        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    class Moment(_Envelope): ...

    class ShallowDocument(_Envelope): ...

    class BatchWriteEnvelope(_Envelope): ...

    class ListDocumentsEnvelope(_Envelope): ...

    class RunQueryEnvelope(_Envelope): ...

    class BatchGetEnvelope(_Envelope): ...

    class FieldsEnvelope(_Envelope): ...

    class MapEnvelope(_Envelope): ...

else:
    _FIELD = descriptor_pb2.FieldDescriptorProto
    _KINDS = {
        "bytes": _FIELD.TYPE_BYTES,
        "string": _FIELD.TYPE_STRING,
        "int64": _FIELD.TYPE_INT64,
        "int32": _FIELD.TYPE_INT32,
        "bool": _FIELD.TYPE_BOOL,
    }
    # message: field -> (number, type, repeated)
    _LAYOUT = {
        "Moment": {"seconds": (1, "int64", False), "nanos": (2, "int32", False)},
        "ShallowDocument": {
            "name": (1, "string", False),
            "fields": (2, "bytes", True),
            "create_time": (3, "Moment", False),
            "update_time": (4, "Moment", False),
        },
        "BatchWriteEnvelope": {"database": (1, "string", False), "writes": (2, "bytes", True)},
        "ListDocumentsEnvelope": {"documents": (1, "bytes", True), "next_page_token": (2, "string", False)},
        "RunQueryEnvelope": {
            "document": (1, "bytes", False),
            "read_time": (3, "Moment", False),
            "done": (6, "bool", False),
        },
        "BatchGetEnvelope": {
            "found": (1, "bytes", False),
            "missing": (2, "string", False),
            "read_time": (4, "Moment", False),
        },
    }
    # message with a map from text to bytes, ``fields``: its number
    _MAPS = {"FieldsEnvelope": 2, "MapEnvelope": 1}

    def _build():
        file = descriptor_pb2.FileDescriptorProto(
            name="runbookd/envelope.proto", package="runbookd.envelope", syntax="proto3"
        )
        for message, fields in _LAYOUT.items():
            declared = file.message_type.add(name=message)
            for name, (number, kind, repeated) in fields.items():
                field = declared.field.add(
                    name=name, number=number, label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
                )
                if kind in _KINDS:
                    field.type = _KINDS[kind]
                else:
                    field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".runbookd.envelope.{kind}"
        for message, number in _MAPS.items():
            declared = file.message_type.add(name=message)
            entry = declared.nested_type.add(name="FieldsEntry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=_FIELD.LABEL_OPTIONAL, type=_FIELD.TYPE_STRING)
            entry.field.add(name="value", number=2, label=_FIELD.LABEL_OPTIONAL, type=_FIELD.TYPE_BYTES)
            declared.field.add(
                name="fields",
                number=number,
                label=_FIELD.LABEL_REPEATED,
                type=_FIELD.TYPE_MESSAGE,
                type_name=f".runbookd.envelope.{message}.FieldsEntry",
            )
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        return {
            message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"runbookd.envelope.{message}"))
            for message in (*_LAYOUT, *_MAPS)
        }

    _classes = _build()
    Moment = _classes["Moment"]
    ShallowDocument = _classes["ShallowDocument"]
    BatchWriteEnvelope = _classes["BatchWriteEnvelope"]
    ListDocumentsEnvelope = _classes["ListDocumentsEnvelope"]
    RunQueryEnvelope = _classes["RunQueryEnvelope"]
    BatchGetEnvelope = _classes["BatchGetEnvelope"]
    FieldsEnvelope = _classes["FieldsEnvelope"]
    MapEnvelope = _classes["MapEnvelope"]

__all__ = [
    "BatchGetEnvelope",
    "BatchWriteEnvelope",
    "FieldsEnvelope",
    "ListDocumentsEnvelope",
    "MapEnvelope",
    "Moment",
    "RunQueryEnvelope",
    "ShallowDocument",
]
