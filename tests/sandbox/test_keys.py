"""Names sort as Firestore sorts them, and only legal ones get in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.catalogue import Collection, clip, first_segment, in_name_order
from agent.sandbox.keys import AFTER_DESCENDANTS, path_key, segment_key, split_document
from agent.sandbox.status import StatusError

_ids = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=6)
_paths = st.lists(_ids, min_size=1, max_size=4)


@given(_ids, _ids)
def test_ids_compare_as_their_utf8_bytes(left: str, right: str) -> None:
    """Any two ordinary ids order as their UTF-8 does, NUL characters included."""
    assert (segment_key(left) < segment_key(right)) == (left.encode() < right.encode())


def test_numbers_come_first_and_by_number() -> None:
    """Ids of the form __id7__ precede all others and don't sort as text."""
    ids = ["__id-3__", "__id0__", "__id7__", "__id10__", "", "0", "__id07__", "a"]
    backwards = ids[::-1]
    assert sorted(backwards, key=segment_key)[:4] == ids[:4]


@given(_paths, _paths)
def test_paths_compare_segment_by_segment(left: list[str], right: list[str]) -> None:
    """Concatenated keys order paths as lists of segments: a parent before what lies beneath it."""
    assert (path_key(left) < path_key(right)) == ([s.encode() for s in left] < [s.encode() for s in right])


@given(_paths)
def test_the_first_segment_is_found_again(path: list[str]) -> None:
    """A key can be cut after its first segment, whatever that contains."""
    assert first_segment(path_key(path)) == segment_key(path[0])


@given(st.lists(st.tuples(_ids, _ids), max_size=5), st.lists(_ids, max_size=4), _paths, _paths)
def test_runs_are_all_documents_in_name_order(
    nested: list[tuple[str, str]], ids: list[str], low: list[str], high: list[str]
) -> None:
    """Reading collections stretch by stretch visits every document once, in name order, within bounds."""
    paths = {"c", *(f"c/{parent}/{name}" for parent, name in nested)}
    collections = sorted(
        (Collection.of(n, "root", path) for n, path in enumerate(sorted(paths))), key=lambda c: c.prefix
    )
    keys = sorted({segment_key(name) for name in [*ids, *(parent for parent, _ in nested)]})
    lower, upper = path_key(low), path_key(high)
    visited = []
    for run in in_name_order(collections):
        part = clip(run, lower, upper)
        if part is not None:
            visited += [part.collection.prefix + key for key in keys if part.low <= key < part.high]
    everything = sorted(collection.prefix + key for collection in collections for key in keys)
    assert visited == [full for full in everything if lower <= full < upper]


def test_descendants_end_before_the_next_sibling() -> None:
    """The mark after all descendants separates a document's subtree from what follows."""
    parent, child, sibling = path_key(["a", "1"]), path_key(["a", "1", "z", "￿"]), path_key(["a", "10"])
    assert parent < child < parent + AFTER_DESCENDANTS < sibling


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a", "lacks"),
        ("a/.", 'resource id "."'),
        ("a/__x__", "reserved"),
        ("a/__id07__", "reserved"),
        ("a/__id0__", "reserved"),
        ("__a__/b", "reserved"),
        ("a/" + "é" * 751, "longer than 1500 bytes"),
        ("a//b/c", "empty"),
    ],
)
def test_illegal_names_are_refused(path: str, text: str) -> None:
    """What the service does not accept as a document's name is INVALID_ARGUMENT here too."""
    with pytest.raises(StatusError, match=text) as refusal:
        split_document(f"projects/p/databases/d/documents/{path}")
    assert refusal.value.code.name == "INVALID_ARGUMENT"
