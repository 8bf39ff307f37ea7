"""The order of document names and their parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.firestore.names import (
    SMALLEST_ID,
    collection_id,
    collection_of,
    document_id,
    integer_id,
    is_collection,
    is_document,
    parent_of,
    root_collection,
    sort_key,
)


def test_order_is_the_one_the_emulator_showed() -> None:
    """Numeric ids come first and by number, the rest by UTF-8 bytes, a document before what is beneath it."""
    observed = [
        "ids/__id-3__", "ids/__id7__", "ids/__id10__", "ids/__id9223372036854775807__", "ids/!", "ids/10", "ids/9",
        "ids/B", "ids/a", "ids/a b", "ids/a.b", "ids/x\x00y", "ids/~", "ids/é", "ids/\ufffd", "ids/\U0001f600",
    ]  # fmt: skip
    assert sorted(set(observed), key=sort_key) == observed
    tree = ["a/x", "a/x/b/y", "a/x/b/y/c/z", "a/xa", "a/y", "aa/x"]
    assert sorted(set(tree), key=sort_key) == tree


def test_only_canonical_64_bit_numbers_are_numeric_ids() -> None:
    """Anything else that looks alike is an ordinary (in fact a reserved) id."""
    assert integer_id("__id7__") == 7
    assert integer_id("__id0__") == 0
    assert integer_id("__id-9223372036854775808__") == -(2**63)
    for ordinary in ("__id07__", "__id-0__", "__id9223372036854775808__", "__idx__", "__id7_", "7", "__id__"):
        assert integer_id(ordinary) is None


@given(st.text(min_size=1).filter(lambda text: "/" not in text))
def test_nothing_sorts_before_the_smallest_id(id_: str) -> None:
    """A range that begins with it begins before every document of the collection."""
    assert sort_key(f"c/{SMALLEST_ID}") <= sort_key(f"c/{id_}")


def test_parts_of_a_nested_path() -> None:
    """Each part of a path has one name and one function."""
    path = "users/u1/items/i1"
    assert is_document(path)
    assert not is_collection(path)
    assert not is_document("users//items/i1")
    assert collection_of(path) == "users/u1/items"
    assert is_collection(collection_of(path))
    assert collection_id(path) == collection_id("users/u1/items") == "items"
    assert document_id(path) == "i1"
    assert root_collection(path) == "users"
    assert parent_of("users/u1/items") == "users/u1"
    assert parent_of("users") == ""
