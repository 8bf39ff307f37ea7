"""What a transform's result becomes: writes, and digests by which what was meant is known again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from agent.firestore import DatabaseAddress, MustExistAt, RawDocument, encode_fields
from agent.firestore.protos import Document as Message
from agent.migration import DELETE, Document
from agent.migration.changes import PlannedChange, changes_of, digest_of, is_as_meant
from agent.migration.definition import Definition
from agent.migration.document import Transformed
from agent.migration.journal import Action
from tests.firestore.field_values import FIELDS, KEYS

_ADDRESS = DatabaseAddress(project="p", host="nowhere:1")
_NAME = _ADDRESS.name("users", "u1")


def _raw(fields: dict[str, Any], at: int = 7) -> RawDocument:
    message = Message.FromString(encode_fields(fields))
    message.name = _NAME
    message.update_time.FromNanoseconds(at)
    return RawDocument(message.SerializeToString())


def _own(raw: RawDocument, transform: Callable[[Document], Transformed]) -> PlannedChange | None:
    definition = Definition(
        revision="0001",
        name="0001_made",
        path=Path("0001_made.py"),
        checksum="c",
        title="Made.",
        collections=("users",),
        transform=transform,
    )
    changes = changes_of(definition, raw, _ADDRESS)
    assert not changes.problem
    return changes.own


@given(FIELDS, FIELDS, st.sets(KEYS, max_size=2), FIELDS)
def test_what_was_meant_is_known_again(
    fields: dict[str, Any], changed: dict[str, Any], gone: set[str], other: dict[str, Any]
) -> None:
    """The document as it was meant to be, whoever wrote it; not as it was, and not with anything else in it."""
    raw = _raw(fields)
    after = {key: value for key, value in {**fields, **changed}.items() if key not in gone}
    own = _own(raw, lambda document: Document(document.name, after))
    edited = _own(raw, lambda document: _edited(document, changed, gone))
    if encode_fields(after) == encode_fields(fields):
        assert own is None
        assert edited is None
        return
    assert own is not None
    assert edited is not None
    assert (own.intent.action, edited.intent.action) == (Action.UPDATE, Action.EDIT)
    assert own.write.whole == edited.write.whole == encode_fields(after)
    assert own.write.precondition == edited.write.precondition == MustExistAt(raw.update_time)
    for intent in (own.intent, edited.intent):
        assert is_as_meant(intent, _raw(after, at=9))
        assert not is_as_meant(intent, _raw(fields, at=9))
        assert not is_as_meant(intent, None)
        assert is_as_meant(intent, _raw(other, at=9)) == (encode_fields(other) == encode_fields(after))


@given(FIELDS, FIELDS, st.sets(KEYS, max_size=2))
def test_one_field_more_or_less_is_not_what_was_meant(
    fields: dict[str, Any], changed: dict[str, Any], gone: set[str]
) -> None:
    """Somebody else's write on top of the migration's, which left alone what that had touched."""
    raw = _raw(fields)
    own = _own(raw, lambda document: _edited(document, changed, gone))
    assume(own is not None)
    assert own is not None
    after = {key: value for key, value in {**fields, **changed}.items() if key not in gone}
    assert not is_as_meant(own.intent, _raw({**after, "somebody's": True}))
    for key in after:
        assert not is_as_meant(own.intent, _raw({kept: value for kept, value in after.items() if kept != key}))


def _edited(document: Document, changed: dict[str, Any], gone: set[str]) -> Document:
    for key, value in changed.items():
        document = document.with_field((key,), value)
    return document.without(*[(key,) for key in gone])


def test_a_delete_is_known_by_there_being_nothing() -> None:
    """A document that is there, whatever is in it, was not deleted."""
    raw = _raw({"n": 1})
    own = _own(raw, lambda _: DELETE)
    assert own is not None
    assert is_as_meant(own.intent, None)
    assert not is_as_meant(own.intent, raw)


def test_a_document_kept_from_an_earlier_version_is_written_whole() -> None:
    """A definition that remembers documents: what differs from that version is not what differs from this one."""
    kept: list[Document] = []

    def transform(document: Document) -> Document:
        kept.append(document)
        return kept[0].with_fields(seen=True)

    padding = {"beside": "x" * 2_000}
    assert _own(_raw({"n": 1, **padding}), transform) is not None
    own = _own(_raw({"n": 2, **padding}, at=8), transform)
    assert own is not None
    assert own.write.patch is None
    assert own.write.fields == encode_fields({"n": 1, "seen": True, **padding})


def test_little_of_a_large_document_is_sent_as_a_patch_and_much_of_it_whole() -> None:
    """Above half of the document, the server's merging costs what its reading saves."""
    raw = _raw({"n": 1, "beside": "x" * 2_000})
    little = _own(raw, lambda document: document.with_fields(n=2))
    much = _own(raw, lambda document: document.with_fields(beside="y" * 2_000))
    assert little is not None
    assert much is not None
    assert little.write.patch is not None
    assert len(little.write.encoded()) < 200
    assert much.write.patch is None
    assert much.write.fields == encode_fields({"n": 1, "beside": "y" * 2_000})


def test_journals_of_before_told_the_whole_document() -> None:
    """An UPDATE with a before-image, as earlier versions wrote it: its digest is of all fields."""
    raw, after = _raw({"n": 1}), _raw({"n": 2}, at=9)
    own = _own(raw, lambda document: document.with_fields(n=2))
    assert own is not None
    old = own.intent._replace(action=Action.UPDATE, digest=digest_of(after))
    assert is_as_meant(old, after)
    assert not is_as_meant(old, raw)
