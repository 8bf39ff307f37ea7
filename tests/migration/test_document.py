"""What a transform sees and may do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.firestore import LazyFields, encode_fields
from agent.migration import Document
from tests.firestore.field_values import FIELDS, VALUES

DOCUMENT = Document("users/u-1/reviews/r-1", {"a": 1, "map": {"x": 1, "y": {"z": 2}}, "dotted.key": 3, "null": None})


def test_names() -> None:
    """A document knows its id, its collection and the document above it."""
    assert (DOCUMENT.id, DOCUMENT.collection, DOCUMENT.parent) == ("r-1", "reviews", "users/u-1")
    assert Document("users/u-1").parent is None


def test_reading_by_path() -> None:
    """Paths are dotted; a key with a dot in it is given as a tuple; null is a value."""
    assert DOCUMENT.get("map.y.z") == 2
    assert DOCUMENT.get("map.nothing.z", "none") == "none"
    assert DOCUMENT.get(("dotted.key",)) == 3
    assert DOCUMENT.has("null")
    assert not DOCUMENT.has("a.b")


def test_changes_are_copies() -> None:
    """Every change leaves the document as it was, at every depth."""
    changed = DOCUMENT.with_field("map.y.z", 9).without("a", "map.x", "nothing").with_fields(b=2)
    assert changed.fields == {"map": {"y": {"z": 9}}, "dotted.key": 3, "null": None, "b": 2}
    assert DOCUMENT.fields["map"] == {"x": 1, "y": {"z": 2}}
    assert "a" in DOCUMENT.fields


def test_renaming() -> None:
    """A value moves to another path; where there is none, nothing happens."""
    assert DOCUMENT.renamed("a", "map.a").fields["map"] == {"x": 1, "y": {"z": 2}, "a": 1}
    assert DOCUMENT.renamed("nothing", "map.a") is DOCUMENT


def test_elsewhere_has_fields_of_its_own() -> None:
    """A new document at another path starts as a copy, or with what it is given."""
    copy = DOCUMENT.elsewhere("archive/r-1")
    assert copy.fields == DOCUMENT.fields
    assert copy.fields is not DOCUMENT.fields
    assert DOCUMENT.elsewhere("archive/r-1", {"n": 1}) == Document("archive/r-1", {"n": 1})


def test_documents_are_values() -> None:
    """Equal names and fields make equal documents, read or made; nothing but the dict can be changed."""
    read = Document.read("a/b", LazyFields(encode_fields({"n": 1, "map": {"x": [1]}})))
    assert read == Document("a/b", {"n": 1, "map": {"x": [1]}})
    assert read != Document("a/c", read.fields)
    assert repr(read.with_fields(n=2)) == "Document(name='a/b', fields={'map': {'x': [1]}, 'n': 2})"
    twin = copy.deepcopy(read)
    twin.fields["map"]["x"].append(2)
    assert read.get("map.x") == [1]
    with pytest.raises(AttributeError):
        read.name = "a/d"  # type: ignore[misc]


_PATHS = st.lists(st.sampled_from(["a", "b", "map", "list", "x"]), min_size=1, max_size=3).map(".".join)
_STEPS: st.SearchStrategy[Callable[[Document], Document]] = st.one_of(
    st.builds(lambda path, value: lambda d: d.with_field(path, value), _PATHS, VALUES),
    st.builds(lambda value: lambda d: d.with_fields(a=value, map={"x": value}), VALUES),
    st.builds(lambda one, two: lambda d: d.without(one, two), _PATHS, _PATHS),
    st.builds(lambda old, new: lambda d: d.renamed(old, new), _PATHS, _PATHS),
    st.builds(lambda path: lambda d: d.with_fields(copied=d.get(path)), _PATHS),
    st.builds(lambda path: lambda d: d.with_fields(has=d.has(path)), _PATHS),
    st.builds(lambda value: lambda d: _changed_in_place(d, value), VALUES),
    st.just(lambda d: Document(d.name, {**d.fields, "b": 1})),
    st.just(lambda d: d.elsewhere("a/c")),
    st.just(lambda d: d.with_fields(count=len(d.fields))),
)


def _changed_in_place(document: Document, value: Any) -> Document:
    inner = document.get("list")
    if isinstance(inner, list):
        inner.append(value)
    document.fields["in place"] = value
    return document


@given(FIELDS, st.dictionaries(st.sampled_from(["a", "map", "list"]), VALUES), st.lists(_STEPS, max_size=6))
def test_a_document_that_was_read_is_like_one_that_was_made(
    fields: dict[str, Any], more: dict[str, Any], steps: list[Callable[[Document], Document]]
) -> None:
    """Whatever a transform does: decoding late and splicing what was left alone shows nowhere, in no byte."""
    body = encode_fields({**fields, **more, "list": [[1], "two"], "map": {"x": {"a": 1}}})
    lazy = Document.read("a/b", LazyFields(body))
    eager = Document("a/b", LazyFields(body).all())
    for step in steps:
        lazy, eager = step(lazy), step(eager)
    written = lazy.encoded()
    assert written == eager.encoded() == encode_fields(eager.fields)
    assert repr(sorted(lazy.fields)) == repr(sorted(eager.fields))
    assert lazy.encoded() == written
