"""Fields that are decoded when they are asked for end as those that were decoded at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.faults import Permanent
from agent.firestore import GONE, LazyFields, Timestamp, decode_fields, encode_fields
from agent.firestore.patches import difference, field_path
from agent.firestore.protos import Document, DocumentMask
from tests.firestore.field_values import FIELDS, KEYS, OPAQUE, VALUES


def raw_document(fields: dict[str, Any]) -> bytes:
    """A document as a server sends it, with name and times."""
    message = Document.FromString(encode_fields(fields))
    message.name = "projects/p/databases/(default)/documents/a/b"
    message.create_time.FromNanoseconds(1)
    message.update_time.FromNanoseconds(2)
    return message.SerializeToString()


@given(FIELDS, FIELDS, st.lists(KEYS, max_size=3), st.lists(KEYS, max_size=3))
def test_changed_fields_are_as_if_everything_had_been_encoded(
    fields: dict[str, Any], changed: dict[str, Any], removed: list[str], read: list[str]
) -> None:
    """Bytes are equal to those of the eager way, whatever was read, changed and removed."""
    gone = [key for key in [*removed, *list(fields)[:1]] if key not in changed]
    lazy = LazyFields(raw_document(fields))
    for key in read:
        lazy.get(key)
    expected = {key: value for key, value in {**fields, **changed}.items() if key not in gone}
    patch = lazy.patch({**changed, **dict.fromkeys(gone, GONE)})
    assert patch.applied_to(lazy.raw) == encode_fields(expected)
    assert patch == difference(lazy.raw, raw_document(expected)), "two versions have one difference"


@given(FIELDS, FIELDS)
def test_whole_dicts_are_encoded_alike(fields: dict[str, Any], others: dict[str, Any]) -> None:
    """Values taken over from the document, and others, give the same bytes by either way."""
    lazy = LazyFields(raw_document(fields))
    kept = {key: value for index, (key, value) in enumerate(lazy.all().items()) if index % 2}
    patch = lazy.patch_as({**kept, **others})
    assert patch.applied_to(lazy.raw) == encode_fields({**kept, **others})
    assert patch == difference(lazy.raw, raw_document({**kept, **others}))


@given(FIELDS, FIELDS, st.lists(KEYS, max_size=3))
def test_a_patch_on_the_old_fields_gives_the_new_ones(
    fields: dict[str, Any], changed: dict[str, Any], removed: list[str]
) -> None:
    """What a server does with a mask: the fields that it names come from the patch or go. None is named in vain."""
    gone = [key for key in [*removed, *list(fields)[:1]] if key not in changed]
    patch = LazyFields(raw_document(fields)).patch({**changed, **dict.fromkeys(gone, GONE)})
    expected = encode_fields({key: value for key, value in {**fields, **changed}.items() if key not in gone})
    touched = {key for key in [*changed, *gone] if not _alike(fields, decode_fields(expected), key)}
    assert sorted(DocumentMask.FromString(patch.mask).field_paths) == sorted(map(field_path, touched))
    was, new = Document.FromString(encode_fields(fields)), Document.FromString(patch.fields)
    for key in touched:
        was.fields.pop(key, None)
        if key in new.fields:
            was.fields[key].CopyFrom(new.fields[key])
    assert was.SerializeToString(deterministic=True) == expected


def _alike(some: dict[str, Any], others: dict[str, Any], key: str) -> bool:
    if key not in some or key not in others:
        return key not in some and key not in others
    return encode_fields({key: some[key]}) == encode_fields({key: others[key]})


def test_what_is_set_to_what_it_was_is_not_a_difference() -> None:
    """Equal bit for bit; 0.0 and -0.0 are not, NaN is itself."""
    lazy = LazyFields(raw_document({"n": 1, "zero": 0.0, "nan": float("nan"), "map": {"a": 1, "b": 2}}))
    assert lazy.patch({"n": 1, "nan": float("nan"), "map": {"b": 2, "a": 1}}).keys == ()
    assert lazy.patch({"zero": -0.0, "n": True, "nan": GONE, "not there": GONE}).keys == ("n", "nan", "zero")


@given(FIELDS)
def test_reading_agrees_with_decoding(fields: dict[str, Any]) -> None:
    """Each field by itself, all of them, and which there are; also after the fields were encoded."""
    raw = raw_document(fields)
    eager = decode_fields(raw)
    lazy = LazyFields(raw)
    assert repr({key: lazy.get(key) for key in eager}) == repr(eager)
    lazy.patch({"new": 1, **dict.fromkeys(eager, GONE)})
    assert repr(lazy.all()) == repr(eager)
    assert [key in lazy for key in eager] == [True] * len(eager)
    assert "new" not in lazy or "new" in eager
    assert lazy.get("a key that is not there", "default") == "default"


@given(FIELDS, VALUES)
def test_what_is_changed_in_place_is_written(fields: dict[str, Any], value: Any) -> None:
    """Lists and maps that were handed out count as they are when they are encoded."""
    lazy = LazyFields(raw_document({**fields, "list": [1], "map": {"a": 1}}))
    lazy.get("list").append(value)
    lazy.get("map")["b"] = value
    expected = encode_fields({**fields, "list": [1, value], "map": {"a": 1, "b": value}})
    assert lazy.patch({}).applied_to(lazy.raw) == expected


def test_untouched_fields_keep_what_this_version_does_not_know() -> None:
    """A kind of value of tomorrow, and a timestamp in a form that Python would tidy up, go back as they came."""
    message = Document.FromString(encode_fields({"new": OPAQUE, "n": 1}))
    message.fields["odd"].timestamp_value.nanos = 1_500_000_000
    lazy = LazyFields(message.SerializeToString())
    assert lazy.get("odd") == Timestamp(1_500_000_000)
    again = Document.FromString(lazy.patch({"n": 2}).applied_to(lazy.raw))
    assert again.fields["new"] == message.fields["new"]
    assert again.fields["odd"].timestamp_value.nanos == 1_500_000_000


def test_a_field_that_cannot_be_stored_is_named() -> None:
    """The error names the field, changed or changed in place."""
    lazy = LazyFields(raw_document({"list": []}))
    with pytest.raises(Permanent, match="field 'age'"):
        lazy.patch({"age": 2**63})
    lazy.get("list").append(object())
    with pytest.raises(Permanent, match="field 'list'"):
        lazy.patch({})
