"""What a transform sees and may do."""

from __future__ import annotations

from agent.migration import Document

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
