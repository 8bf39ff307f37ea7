"""Documents taken apart without decoding them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.firestore import DocumentKey, RawDocument, encode_fields
from agent.firestore.document import with_name
from agent.firestore.patches import Patch
from agent.firestore.protos import Document, DocumentMask, Precondition, Timestamp, Value, Write
from agent.firestore.writes import MustExist, MustExistAt, MustNotExist, PlannedWrite, WriteKind

_NAME = "projects/p/databases/(default)/documents/users/u1"
_PATCH = Patch(keys=("n", "odd ` name\\"), fields=encode_fields({"n": 1}))
_FIELDS = st.dictionaries(
    st.text(max_size=6), st.one_of(st.text(max_size=200), st.binary(max_size=200), st.integers(-5, 5)), max_size=8
)
_NANOS = st.integers(0, 2**62)


def _document(fields: dict[str, Any], created: int, updated: int) -> Document:
    document = Document.FromString(encode_fields(fields))
    document.name = _NAME
    document.create_time.FromNanoseconds(created)
    document.update_time.FromNanoseconds(updated)
    return document


@given(_FIELDS, _NANOS, _NANOS)
def test_shallow_reading_agrees_with_protobuf(fields: dict[str, Any], created: int, updated: int) -> None:
    """Name, times and fields are what a full parse says."""
    message = _document(fields, created, updated)
    document = RawDocument(message.SerializeToString())
    assert document.name == _NAME
    assert document.create_time == created
    assert document.update_time == updated
    assert document.parsed() == message
    assert Document.FromString(document.fields).fields == message.fields
    assert Document.FromString(with_name(_NAME, document.fields)) == Document(name=_NAME, fields=message.fields)


def test_fields_unknown_today_are_kept() -> None:
    """What a newer server adds to a document goes through a backup and back."""
    unknown = bytes.fromhex("c23e03616263")
    document = RawDocument(_document({"a": 1}, 1, 2).SerializeToString() + unknown)
    assert document.raw.endswith(unknown)
    assert document.fields.endswith(unknown)


def test_a_document_without_fields_and_times() -> None:
    """Empty documents and documents under a mask are documents."""
    document = RawDocument(Document(name=_NAME).SerializeToString())
    assert document.fields == b""
    assert document.update_time == document.create_time == 0
    assert DocumentKey(document.name, document.update_time) == DocumentKey(_NAME, 0)


@given(_FIELDS, _NANOS)
def test_writes_are_encoded_as_protobuf_would(fields: dict[str, Any], moment: int) -> None:
    """The hand-made envelope parses as the real Write message."""
    body = encode_fields(fields)
    expected = Document.FromString(body)
    expected.name = _NAME
    at = Timestamp()
    at.FromNanoseconds(moment)
    cases = [
        (None, None),
        (MustExistAt(moment), Precondition(update_time=at)),
        (MustExist(), Precondition(exists=True)),
        (MustNotExist(), Precondition(exists=False)),
    ]
    for condition, precondition in cases:
        write = Write.FromString(PlannedWrite(name=_NAME, fields=body, precondition=condition).encoded())
        assert write == Write(update=expected, current_document=precondition)
        patched = PlannedWrite(name=_NAME, precondition=condition, patch=_PATCH, base=expected.SerializeToString())
        changed = Document.FromString(encode_fields({**fields, "n": 1}))
        changed.fields.pop("odd ` name\\", None)
        assert Document.FromString(patched.whole) == changed
        sent = Write.FromString(patched.encoded())
        if isinstance(condition, MustExistAt):
            only = Document(name=_NAME, fields={"n": Value(integer_value=1)})
            mask = DocumentMask(field_paths=["n", "`odd \\` name\\\\`"])
            assert sent == Write(update=only, update_mask=mask, current_document=precondition)
        else:
            changed.name = _NAME
            whole = Write(update=changed, current_document=precondition)
            assert sent == whole, "a patch is nothing without the version that it is a patch of"
        delete = PlannedWrite(name=_NAME, kind=WriteKind.DELETE, precondition=condition).encoded()
        assert Write.FromString(delete) == Write(delete=_NAME, current_document=precondition)
