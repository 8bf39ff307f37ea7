"""The official client library works against the sandbox as against any emulator."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud import firestore


@pytest.fixture
def client(sandbox: Any, project: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", sandbox.host)
    client: Any = firestore.Client(project=project)
    yield client
    client.close()


def test_documents(client: Any) -> None:
    """Set, update with transforms, get, batch and delete."""
    document = client.document("a/1")
    document.set({"n": 1, "at": firestore.SERVER_TIMESTAMP, "m": {"x": b"\x00", "none": None}})
    document.update({"n": firestore.Increment(4), "l": firestore.ArrayUnion([1, 2]), "m.x": firestore.DELETE_FIELD})
    stored = document.get().to_dict()
    assert (stored["n"], stored["l"], stored["m"]) == (5, [1, 2], {"none": None})
    batch = client.batch()
    batch.delete(document)
    batch.create(client.document("a/2"), {})
    batch.commit()
    assert [snapshot.id for snapshot in client.collection("a").stream()] == ["2"]


def test_queries(client: Any) -> None:
    """Filters, orders, limits, counts, collection groups, collections and partitions."""
    for number in range(9):
        client.document(f"x/{number % 2}/b/{number}").set({"n": number, "odd": number % 2 == 1})
    group = client.collection_group("b")
    odd = group.where(filter=firestore.FieldFilter("odd", "==", True))
    found = odd.order_by("n", direction=firestore.Query.DESCENDING).limit(2).stream()
    assert [snapshot.get("n") for snapshot in found] == [7, 5]
    assert group.count().get()[0][0].value == 9
    assert [collection.id for collection in client.collections()] == ["x"]
    assert sorted(document.id for document in client.collection("x").list_documents()) == ["0", "1"]
    parts = list(group.get_partitions(3))
    assert sum(len(list(part.query().stream())) for part in parts) == 9


def test_transactions(client: Any) -> None:
    """A transaction that loses a race is retried by the client and then succeeds."""
    document = client.document("a/1")
    document.set({"n": 1})
    attempts: list[int] = []

    @firestore.transactional
    def double(transaction: Any) -> None:
        seen = document.get(transaction=transaction).get("n")
        if not attempts:
            document.set({"n": 10})
        attempts.append(seen)
        transaction.update(document, {"n": seen * 2})

    double(client.transaction())
    assert attempts == [1, 10]
    assert document.get().get("n") == 20


def test_bulk_writer(client: Any) -> None:
    """BulkWriter, which works through BatchWrite, writes everything."""
    writer = client.bulk_writer()
    for number in range(30):
        writer.set(client.document(f"c/{number}"), {"n": number})
    writer.close()
    assert client.collection("c").count().get()[0][0].value == 30
