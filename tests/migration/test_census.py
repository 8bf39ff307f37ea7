"""The census: every document counted once, bytes estimated or summed, the page held against it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.firestore import encode_fields
from agent.migration import Census, Expected, take_census
from tests.migration.world import World

PAGE = Expected(documents=30, bytes=0.0, collections=2, order={"users": 10, "items": 20, "sessions": None})


def _filled(world: World) -> int:
    """Ten users, twenty items (five below users, one of them missing), notes nobody knows; returns their bytes."""
    items = [f"items/i{n:02d}" for n in range(15)] + [f"users/u{n:02d}/items/x" for n in (0, 1, 2, 3, 99)]
    documents: dict[str, dict[str, Any]] = {
        **{f"users/u{n:02d}": {"name": "x" * 10, "age": n} for n in range(10)},
        **{path: {"text": "y" * 200, "tags": ["a"]} for path in items},
        "sessions/s1": {"step": 1},
        "users/u00/notes/n1": {"text": "z"},
        "_migrations/0001": {"state": "done"},
    }
    world.put(documents)
    return sum(
        len(world.firestore.address.name(path)) + len(encode_fields(fields))
        for path, fields in documents.items()
        if not path.startswith("_")
    )


def _counted(census: Census) -> dict[str, tuple[int, int]]:
    return {group.collection: (group.documents, group.nested) for group in census.groups}


@pytest.mark.parametrize("full", [False, True])
def test_every_document_is_counted_wherever_it_is(world: World, full: bool) -> None:
    """Under other documents and under missing ones; the agent's own records are not the user's data."""
    size = _filled(world)
    census = take_census(world.firestore, PAGE, full=full)
    assert _counted(census) == {"users": (10, 0), "items": (20, 5), "sessions": (1, 0), "notes": (1, 1)}
    assert [group.collection for group in census.groups] == ["users", "items", "sessions", "notes"], "the page's order"
    assert (census.documents, census.unseen, census.full) == (32, 0, full)
    assert census.root_collections == ("items", "sessions", "users")
    # A collection this small is sampled whole: the estimate is the sum.
    assert census.bytes == pytest.approx(size, rel=1e-9)


def test_types_are_shares_of_values(world: World) -> None:
    """Half of an item's two values is a string, the other half an array."""
    _filled(world)
    items = next(g for g in take_census(world.firestore, PAGE).groups if g.collection == "items")
    assert items.types == {"string": 0.5, "array": 0.5}


def test_the_page_is_held_against_it(world: World) -> None:
    """What differs is named with both figures; what agrees is not."""
    _filled(world)
    page = Expected(documents=31, bytes=1e6, collections=3, order={"users": 11, "items": 20, "sessions": None})
    differences = take_census(world.firestore, page).differences
    assert [(item.subject, item.page, item.found) for item in differences if "bytes" not in item.subject] == [
        ("documents that are migrated", 31, 30),
        ("documents in users", 11, 10),
        ("documents in notes", None, 1),
    ]
    assert [item.page for item in differences if "bytes" in item.subject] == [1e6]


def test_an_empty_database_differs_from_the_page(world: World) -> None:
    """Nothing there is a finding, not an error."""
    census = take_census(world.firestore, PAGE)
    assert (census.documents, census.groups) == (0, ())
    assert "documents in users" in {item.subject for item in census.differences}


def test_documents_that_no_sample_met_are_said(world: World) -> None:
    """Subcollections of a document that wasn't looked at are counted as unseen; a full census finds them."""
    world.put({f"users/u{n:03d}": {"n": 1} for n in range(300)})
    world.put({"users/u151/secrets/s1": {"n": 1}})
    page = Expected(documents=300, bytes=0.0, collections=1, order={"users": 300})
    quick = take_census(world.firestore, page)
    assert (quick.documents, quick.unseen) == (301, 1)
    whole = take_census(world.firestore, page, full=True)
    assert (whole.documents, whole.unseen) == (301, 0)
    assert _counted(whole)["secrets"] == (1, 1)
