"""What a scan must find, and when: the same against the sandbox and against Google's emulator."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason
from agent.firestore import (
    EVERYTHING,
    Carrier,
    Collection,
    CollectionGroup,
    Firestore,
    NameRange,
    PlannedWrite,
    Scope,
    WriteKind,
    encode_fields,
    fingerprint,
    take_fingerprint,
)
from agent.firestore.names import SMALLEST_ID, sort_key
from agent.firestore.protos import Int32Value, StructuredQuery, Value
from agent.telemetry import Telemetry
from tests.firestore.contract.conftest import Running

_TREE = [
    "empty/e1",
    "lessons/l1",
    "orphans/missing/notes/n1",
    "orphans/missing/notes/n1/replies/missing/words/w1",
    "reviews/__id-3__",
    "reviews/__id7__",
    "reviews/__id10__",
    "reviews/!",
    "reviews/10",
    "reviews/9",
    "reviews/B",
    "reviews/a",
    "reviews/a b",
    "reviews/a.b",
    "reviews/é",
    "reviews/\ufffd",
    "reviews/\U0001f600",
    "users/u1",
    "users/u1/items/i1",
    "users/u1/items/i2",
    "users/u10",
    "users/u2/items/i1",
    "users/u3",
]
"""In the order in which Firestore keeps them: under missing parents, odd ids, a document before what is beneath."""


def _put(firestore: Firestore, paths: Iterable[str], value: object = 1) -> None:
    writes = (
        PlannedWrite(
            name=firestore.address.name(path), fields=b"" if path.startswith("empty") else encode_fields({"v": value})
        )
        for path in paths
    )
    ledger = firestore.write(writes).finish()
    assert ledger.applied == ledger.planned


def _paths(firestore: Firestore, scope: Scope = EVERYTHING) -> list[str]:
    at = firestore.server_time()
    return [firestore.address.relative(document.name) for document in firestore.documents(scope, at)]


def test_everything_is_found_in_the_order_of_names(firestore: Firestore) -> None:
    """Documents under missing parents, unicode ids, numeric ids, empty documents: one scan, one order."""
    _put(firestore, reversed(_TREE))
    assert _paths(firestore) == _TREE == sorted(_TREE, key=sort_key)


def test_an_empty_database_is_found_empty(firestore: Firestore) -> None:
    """No documents, no collections, one range, no error."""
    assert _paths(firestore) == []
    at = firestore.server_time()
    assert firestore.collection_ids(read_time=at) == []
    assert [list(firestore.documents(scope, at)) for scope in firestore.ranges(4, at)] == [[]]
    assert firestore.count() == 0


def test_ranges_of_names_are_half_open_and_reach_every_depth(firestore: Firestore) -> None:
    """First is in, last is out; bounds need not exist."""
    _put(firestore, _TREE)
    assert _paths(firestore, NameRange(first="users/u1", last="users/u2")) == [
        "users/u1",
        "users/u1/items/i1",
        "users/u1/items/i2",
        "users/u10",
    ]
    assert _paths(firestore, NameRange(last=f"lessons/{SMALLEST_ID}")) == ["empty/e1"]
    assert _paths(firestore, NameRange(first="users/u1/items/i2")) == _TREE[-4:]


@pytest.mark.parametrize("carrier", list(Carrier))
def test_one_collection_by_either_carrier(firestore: Firestore, telemetry: Telemetry, carrier: Carrier) -> None:
    """Its direct documents and nothing else; missing parents are not documents."""
    _put(firestore, _TREE)
    with Firestore(firestore.address, telemetry=telemetry, carrier=carrier) as other:
        assert _paths(other, Collection(path="users")) == ["users/u1", "users/u10", "users/u3"]
        assert _paths(other, Collection(path="users/u2/items")) == ["users/u2/items/i1"]
        assert _paths(other, Collection(path="orphans")) == []
        assert _paths(other, Collection(path="reviews")) == [path for path in _TREE if path.startswith("reviews/")]


def test_a_collection_group_is_found_wherever_it_occurs(firestore: Firestore) -> None:
    """Under existing and missing parents."""
    _put(firestore, _TREE)
    assert _paths(firestore, CollectionGroup(id="items")) == [path for path in _TREE if "/items/" in path]


@pytest.mark.parametrize("carrier", list(Carrier))
def test_many_pages_carry_every_document_once(firestore: Firestore, telemetry: Telemetry, carrier: Carrier) -> None:
    """More documents than one page or one list, with tokens and all."""
    paths = [f"users/u{n:04d}" for n in range(1000)]
    _put(firestore, paths)
    with Firestore(firestore.address, telemetry=telemetry, carrier=carrier) as other:
        at = other.server_time()
        assert [other.address.relative(key.name) for key in other.keys(Collection(path="users"), at)] == paths
        assert _paths(other, Collection(path="users")) == paths


@pytest.mark.parametrize("carrier", [None, Carrier.STREAM])
@pytest.mark.parametrize("parts", [1, 4])
def test_ranges_together_are_everything_once(
    firestore: Firestore, telemetry: Telemetry, backend: Running, parts: int, carrier: Carrier | None
) -> None:
    """Side by side or one after the other, the parts add up to the whole; streams are about equally long.

    Where the server can't cut, as the emulator can't, there is one.
    """
    many = [f"items/i{n:03d}" for n in range(400)]
    _put(firestore, [*_TREE, *many])
    with Firestore(firestore.address, telemetry=telemetry, carrier=carrier) as other:
        at = other.server_time()
        scopes = other.ranges(parts, at)
        found = [[other.address.relative(d.name) for d in other.documents(scope, at)] for scope in scopes]
    assert [path for part in found for path in part] == sorted([*_TREE, *many], key=sort_key)
    if backend.kind == "emulator":
        assert scopes == [EVERYTHING]
        return
    assert sum(scope.expected or 0 for scope in scopes) == len(_TREE) + len(many)
    if carrier is Carrier.STREAM and parts == 4:
        assert max(map(len, found)) <= 150


def test_a_pinned_scan_does_not_see_what_comes_later(firestore: Firestore) -> None:
    """Creates, updates and deletes while the scan is on its way leave it as it was at its read_time."""
    paths = [f"users/u{n:04d}" for n in range(900)]
    _put(firestore, paths)
    at = firestore.server_time()
    before = fingerprint(firestore.documents(EVERYTHING, at))
    pages = firestore.pages(EVERYTHING, at)
    seen = list(next(pages))
    _put(firestore, ["users/u0500", "users/u9999", "aaa/first"], value=2)
    firestore.write([PlannedWrite(name=firestore.address.name("users/u0800"), kind=WriteKind.DELETE)]).finish()
    for page in pages:
        seen.extend(page)
    assert fingerprint(seen) == before
    name = firestore.address.name("users/u0800")
    assert firestore.get([name], at)[name] is not None
    assert firestore.get([name])[name] is None
    assert firestore.count(EVERYTHING, at) == 900
    assert firestore.collection_ids(read_time=at) == ["users"]
    assert take_fingerprint(firestore, read_time=at) == before
    assert take_fingerprint(firestore) != before


def test_what_was_written_before_the_servers_time_was_asked_is_in_it(firestore: Firestore) -> None:
    """A backup taken now holds what was acknowledged before now."""
    for n in range(20):
        _put(firestore, ["users/u1"], value=n)
        at = firestore.server_time()
        [document] = firestore.documents(EVERYTHING, at)
        assert document.parsed().fields["v"].integer_value == n


def test_a_keys_only_scan_tells_names_and_update_times(firestore: Firestore) -> None:
    """Incrementals find changes by comparing these."""
    _put(firestore, _TREE)
    at = firestore.server_time()
    documents = {document.name: document.update_time for document in firestore.documents(EVERYTHING, at)}
    assert {key.name: key.update_time for key in firestore.keys(EVERYTHING, at)} == documents
    assert all(documents.values())
    assert [len(document.fields) for page in firestore.pages(EVERYTHING, at, keys_only=True) for document in page] == [
        0
    ] * len(_TREE)


def test_get_answers_for_every_name_in_the_order_asked(firestore: Firestore) -> None:
    """Missing documents are answered with None, duplicates once, more than one request's worth at once."""
    paths = [f"users/u{n:03d}" for n in range(350)]
    _put(firestore, paths)
    names = [firestore.address.name(path) for path in ("users/none", *reversed(paths), "users/u001")]
    found = firestore.get(names)
    assert list(found) == names[:-1]
    assert found[names[0]] is None
    assert all(found[name] is not None for name in names[1:])
    assert firestore.get([]) == {}


def test_counts(firestore: Firestore) -> None:
    """Counted by the server: all, one collection, one group."""
    _put(firestore, _TREE)
    assert firestore.count() == len(_TREE)
    assert firestore.count(Collection(path="users")) == 3
    assert firestore.count(CollectionGroup(id="items")) == 3
    assert firestore.count(NameRange(first="users/u1", last="users/u2")) == 4


def test_collection_ids_include_those_of_missing_parents(firestore: Firestore) -> None:
    """At the root and under a document that doesn't exist."""
    _put(firestore, _TREE)
    assert sorted(firestore.collection_ids()) == ["empty", "lessons", "orphans", "reviews", "users"]
    assert firestore.collection_ids("orphans/missing") == ["notes"]


def test_an_old_read_time_is_refused(firestore: Firestore) -> None:
    """READ_TIME_EXPIRED ends a backup; it must not go on at another moment."""
    _put(firestore, ["users/u1"])
    at = firestore.server_time().replace(year=2001)
    with pytest.raises(Permanent) as caught:
        list(firestore.documents(EVERYTHING, at))
    assert caught.value.reason is PermanentReason.READ_TIME_EXPIRED


def test_a_database_that_answers_is_checked_and_one_that_does_not_is_named(
    firestore: Firestore, telemetry: Telemetry
) -> None:
    """Wrong address: the message says which, the hint says what to look at."""
    firestore.check()
    nowhere = type(firestore.address)(project="p", host="127.0.0.1:9")
    with Firestore(nowhere, telemetry=telemetry) as other, pytest.raises(Misconfigured) as caught:
        other.check()
    assert caught.value.reason is MisconfiguredReason.ADDRESS
    assert "127.0.0.1:9" in caught.value.message


# --- the page's four queries ----------------------------------------------------------------------------------------


def _where(field: str, op: int, value: Value) -> StructuredQuery:
    made = StructuredQuery.Filter()
    made.field_filter.field.field_path = field
    made.field_filter.op = op
    made.field_filter.value.CopyFrom(value)
    return made  # type: ignore[no-any-return]  # nested classes have no types


def _query(collection: str, *filters: StructuredQuery, order: tuple[str, int] | None = None) -> StructuredQuery:
    query = StructuredQuery(from_=[StructuredQuery.CollectionSelector(collection_id=collection)])
    if len(filters) == 1:
        query.where.CopyFrom(filters[0])
    elif filters:
        query.where.composite_filter.op = StructuredQuery.CompositeFilter.AND
        query.where.composite_filter.filters.extend(filters)
    if order:
        query.order_by.add(direction=order[1]).field.field_path = order[0]
    query.limit.CopyFrom(Int32Value(value=5))
    return query


def _ids(firestore: Firestore, query: StructuredQuery) -> list[str]:
    return [document.name.rpartition("/")[2] for document in firestore.run_query(query, summary="probe")]


def test_the_queries_of_the_page(firestore: Firestore) -> None:
    """User lookup by a field, the review queue by user and time, items by user and status, statistics by count."""
    writes = [
        PlannedWrite(
            name=firestore.address.name(collection, f"d{n:02d}"),
            fields=encode_fields(
                {
                    "userId": f"u{n % 2}",
                    "email": f"u{n}@example.com",
                    "nextReviewAt": 20 - n,
                    "status": "due" if n % 3 else "done",
                    "lastReviewedAt": n,
                }
            ),
        )
        for collection in ("users", "reviews", "review_items")
        for n in range(20)
    ]
    assert firestore.write(writes).finish().applied == 60
    equal, at_most = StructuredQuery.FieldFilter.EQUAL, StructuredQuery.FieldFilter.LESS_THAN_OR_EQUAL
    user = _where("userId", equal, Value(string_value="u1"))
    lookup = _query("users", _where("email", equal, Value(string_value="u7@example.com")))
    assert _ids(firestore, lookup) == ["d07"]
    queue = _query(
        "reviews",
        user,
        _where("nextReviewAt", at_most, Value(integer_value=9)),
        order=("nextReviewAt", StructuredQuery.ASCENDING),
    )
    assert _ids(firestore, queue) == ["d19", "d17", "d15", "d13", "d11"]
    items = _query(
        "review_items",
        user,
        _where("status", equal, Value(string_value="due")),
        order=("lastReviewedAt", StructuredQuery.DESCENDING),
    )
    assert _ids(firestore, items) == ["d19", "d17", "d13", "d11", "d07"]
    assert firestore.count(Collection(path="review_items")) == 20
