"""Documents as the bytes that go on the wire.

A stored document is *framed*: a complete ``Document`` message preceded by the tag and length of field 1. That field
number is the one that RunQueryResponse, BatchGetDocumentsResponse and ListDocumentsResponse give it, so a reply is
a concatenation and no document is parsed on its way out. Inside, the order is always name, fields, create_time,
update_time: name and times can be cut off by length alone.

Called by the store, the write path and the server.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from agent.firestore.protobuf import delimited, read_varint, varint
from agent.firestore.protos import Document

DOCUMENT_TAG = b"\x0a"  # field 1, length-delimited


@lru_cache(maxsize=4096)
def timestamp(micros: int) -> bytes:
    """A ``google.protobuf.Timestamp`` message, serialised; ``micros`` since the epoch, not negative."""
    seconds, rest = divmod(micros, 1_000_000)
    out = b"\x08" + varint(seconds) if seconds else b""
    return out + b"\x10" + varint(rest * 1000) if rest else out


@lru_cache(maxsize=4096)
def times(created: int, updated: int) -> bytes:
    """The end of a Document message: create_time and update_time, both in microseconds.

    Cached because a commit gives its time to every document in it.
    """
    return delimited(b"\x1a", timestamp(created)) + delimited(b"\x22", timestamp(updated))


def named(name: str) -> bytes:
    """The start of a Document message: its name."""
    return delimited(b"\x0a", name.encode())


def frame(body: bytes, created: int, updated: int) -> bytes:
    """A framed document; ``body`` is the serialised name and fields."""
    end = times(created, updated)
    return b"\x0a" + varint(len(body) + len(end)) + body + end


def message(framed: bytes) -> bytes:
    """The Document message within a frame."""
    _, start = read_varint(framed, 1)
    return framed[start:]


def body(framed: bytes, created: int, updated: int) -> bytes:
    """Name and fields, serialised: a framed document without its times."""
    _, start = read_varint(framed, 1)
    return framed[start : len(framed) - len(times(created, updated))]


def without_fields(framed: bytes, created: int, updated: int) -> bytes:
    """The frame of the same document with its name and times alone, as a keys-only read returns it."""
    _, start = read_varint(framed, 1)
    length, name_start = read_varint(framed, start + 1)
    return frame(framed[start : name_start + length], created, updated)


def parse(framed: bytes) -> Document:
    """The document, parsed."""
    document = Document()
    document.ParseFromString(message(framed))
    return document


def body_of(document: Document) -> bytes:
    """Name and fields of a parsed document, serialised; map entries in a fixed order."""
    plain = Document(name=document.name)
    for key in document.fields:
        plain.fields[key].CopyFrom(document.fields[key])
    return plain.SerializeToString(deterministic=True)


def entries(document: bytes) -> dict[bytes, bytes] | None:
    """The serialised map entries of a Document message's fields, by key; ``None`` if one is not in its usual form."""
    found: dict[bytes, bytes] = {}
    for entry in LazyFields.FromString(document).fields:
        if not entry.startswith(b"\x0a"):
            return None  # a key that is empty, or not the first thing of its entry
        length, start = (entry[1], 2) if entry[1] < 0x80 else read_varint(entry, 1)
        found[entry[start : start + length]] = entry
    return found


def same_content(framed: bytes, other: bytes) -> bool:
    """Whether two framed documents say the same, whatever order their fields and maps come in.

    Unlike comparing messages, tells -0.0 from 0.0 and finds NaN equal to itself.
    """
    entries, others = (set(LazyFields.FromString(message(each)).fields) for each in (framed, other))
    only, only_other = entries - others, others - entries
    return not (only or only_other) or (len(only) == len(only_other) and _canonical(only) == _canonical(only_other))


def _canonical(entries: set[bytes]) -> bytes:
    """Serialised map entries of ``Document.fields``, in a fixed order throughout."""
    document = Document.FromString(b"".join(delimited(b"\x12", entry) for entry in entries))
    return bytes(document.SerializeToString(deterministic=True))


def _lazy_messages() -> dict[str, Any]:
    """Commit, Write and Document with their submessages declared as bytes.

    Parsing those costs a quarter of parsing the real ones: upb checks lengths and leaves the values alone.
    """
    file = descriptor_pb2.FileDescriptorProto(name="agent/sandbox/lazy.proto", package="agent.sandbox.lazy")
    kinds = descriptor_pb2.FieldDescriptorProto
    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    layout: dict[str, list[tuple[str, int, Any, Any]]] = {
        "Commit": [
            ("database", 1, kinds.TYPE_STRING, one),
            ("writes", 2, kinds.TYPE_BYTES, many),
            ("transaction", 3, kinds.TYPE_BYTES, one),
        ],
        "Batch": [
            ("database", 1, kinds.TYPE_STRING, one),
            ("writes", 2, kinds.TYPE_BYTES, many),
        ],
        "Write": [
            ("update", 1, kinds.TYPE_BYTES, one),
            ("delete", 2, kinds.TYPE_STRING, one),
            ("update_mask", 3, kinds.TYPE_BYTES, many),
            ("current_document", 4, kinds.TYPE_BYTES, one),
            ("transform", 6, kinds.TYPE_BYTES, many),
            ("update_transforms", 7, kinds.TYPE_BYTES, many),
        ],
        "Document": [
            ("name", 1, kinds.TYPE_STRING, one),
            ("create_time", 3, kinds.TYPE_BYTES, many),
            ("update_time", 4, kinds.TYPE_BYTES, many),
        ],
        "Fields": [("fields", 2, kinds.TYPE_BYTES, many)],
    }
    for name, fields in layout.items():
        declared = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            declared.field.add(name=field, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"agent.sandbox.lazy.{name}"))
        for name in layout
    }


if TYPE_CHECKING:
    LazyCommit: Any
    LazyBatch: Any
    LazyWrite: Any
    LazyDocument: Any
    LazyFields: Any
else:
    _messages = _lazy_messages()
    LazyCommit, LazyBatch = _messages["Commit"], _messages["Batch"]
    LazyWrite, LazyDocument = _messages["Write"], _messages["Document"]
    LazyFields = _messages["Fields"]
