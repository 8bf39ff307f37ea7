"""Composite indexes: the Admin API's wire format, and servers that have no Admin API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest
from google.cloud.firestore_admin_v1.types import index

from agent.clock import SystemClock
from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason, Transient
from agent.firestore import NO_RETRY, DatabaseAddress, Firestore, IndexAdmin, IndexState, check_indexes
from agent.runbook import Index, IndexField
from agent.sandbox import start_sandbox
from agent.telemetry import quiet_telemetry
from tests.firestore.admin_server import AdminServer, serving

QUEUE = Index(
    collection="reviews",
    scope="COLLECTION",
    fields=(
        IndexField(path="userId", order="ASCENDING"),
        IndexField(path="nextReviewAt", order="ASCENDING"),
    ),
)
ITEMS = Index(
    collection="review_items",
    scope="COLLECTION",
    fields=(
        IndexField(path="userId", order="ASCENDING"),
        IndexField(path="status", order="ASCENDING"),
        IndexField(path="lastReviewedAt", order="DESCENDING"),
    ),
)


class Host(Protocol):
    host: str


@pytest.fixture
def admin_server() -> Iterator[AdminServer]:
    with serving() as server:
        yield server


@pytest.fixture
def admin(admin_server: AdminServer) -> Iterator[IndexAdmin]:
    address = DatabaseAddress(project="p", host=admin_server.host)
    with IndexAdmin(address, clock=SystemClock(), retry=NO_RETRY) as found:
        yield found


def _existing(group: str, identity: str, state: str, *fields: tuple[str, str]) -> Any:
    message = index.Index.pb()(
        name=f"projects/p/databases/(default)/collectionGroups/{group}/indexes/{identity}",
        query_scope="COLLECTION",
        state=state,
    )
    for path, order in (*fields, ("__name__", fields[-1][1])):
        message.fields.add(field_path=path, order=order)
    return message


def test_states_are_read_page_by_page(admin: IndexAdmin, admin_server: AdminServer) -> None:
    """An index is known by its scope and fields, the server's trailing __name__ left out, on whatever page it is."""
    admin_server.indexes = [
        _existing("reviews", "a", "READY", ("userId", "ASCENDING"), ("nextReviewAt", "DESCENDING")),
        _existing("reviews", "b", "READY", ("userId", "ASCENDING"), ("nextReviewAt", "ASCENDING")),
    ]

    queue, items = admin.statuses([QUEUE, ITEMS])

    assert (queue.state, queue.usable, queue.name.endswith("/b")) == (IndexState.READY, True, True)
    assert (items.state, items.usable, items.name) == (IndexState.MISSING, False, "")
    assert "indexes apply" in items.detail
    asked = [(method, request.parent, request.page_token) for method, request, _ in admin_server.requests]
    groups = "projects/p/databases/(default)/collectionGroups"
    assert asked == [
        ("ListIndexes", f"{groups}/reviews", ""),
        ("ListIndexes", f"{groups}/reviews", "1"),
        ("ListIndexes", f"{groups}/review_items", ""),
    ]


@pytest.mark.parametrize(
    ("state", "expected"), [("CREATING", IndexState.CREATING), ("NEEDS_REPAIR", IndexState.NEEDS_REPAIR)]
)
def test_an_index_that_is_not_ready_is_not_usable(
    admin: IndexAdmin, admin_server: AdminServer, state: str, expected: IndexState
) -> None:
    """One that is being made, or whose making failed, answers no query."""
    admin_server.indexes = [
        _existing("reviews", "a", state, ("userId", "ASCENDING"), ("nextReviewAt", "ASCENDING")),
    ]
    (found,) = admin.statuses([QUEUE])
    assert (found.state, found.usable) == (expected, False)
    assert found.detail


def test_create_sends_scope_and_fields_in_order(admin: IndexAdmin, admin_server: AdminServer) -> None:
    """What arrives parses as Google's CreateIndexRequest and is routed to the collection group."""
    operation = admin.create(ITEMS)

    ((method, request, metadata),) = admin_server.requests
    assert operation == "projects/p/databases/(default)/operations/op1"
    assert method == "CreateIndex"
    assert request.parent == "projects/p/databases/(default)/collectionGroups/review_items"
    assert request.index.name == ""
    names = index.Index.pb().QueryScope.Name, index.Index.pb().IndexField.Order.Name
    assert names[0](request.index.query_scope) == "COLLECTION"
    assert [(part.field_path, names[1](part.order)) for part in request.index.fields] == [
        ("userId", "ASCENDING"),
        ("status", "ASCENDING"),
        ("lastReviewedAt", "DESCENDING"),
    ]
    assert metadata["x-goog-request-params"] == (
        "parent=projects%2Fp%2Fdatabases%2F%28default%29%2FcollectionGroups%2Freview_items"
    )


def test_an_index_that_somebody_else_just_made_is_fine(admin: IndexAdmin, admin_server: AdminServer) -> None:
    """ALREADY_EXISTS means that there is nothing left to do."""
    admin_server.refusal = (grpc.StatusCode.ALREADY_EXISTS, "index already exists")
    assert admin.create(QUEUE) == ""


def test_a_missing_role_is_named(admin: IndexAdmin, admin_server: AdminServer) -> None:
    """Indexes need another role than documents do."""
    admin_server.refusal = (grpc.StatusCode.PERMISSION_DENIED, "no")
    with pytest.raises(Misconfigured, match="indexAdmin") as refused:
        admin.create(QUEUE)
    assert refused.value.reason is MisconfiguredReason.CREDENTIALS


def test_an_admin_api_that_is_down_is_no_verdict(admin: IndexAdmin, admin_server: AdminServer) -> None:
    """Not being able to ask is an error, never "missing"."""
    admin_server.refusal = (grpc.StatusCode.UNAVAILABLE, "try later")
    with pytest.raises(Transient):
        admin.statuses([QUEUE])


def test_without_an_admin_api_the_queries_are_asked(backend: Host, project: str) -> None:
    """An emulator that answers every query proves just that; making indexes there is not possible."""
    address = DatabaseAddress(project=project, host=backend.host)
    with (
        Firestore(address, telemetry=quiet_telemetry()) as firestore,
        IndexAdmin(address, clock=SystemClock(), retry=NO_RETRY) as admin,
    ):
        found = check_indexes(firestore, admin, [QUEUE, ITEMS])
        assert [status.state for status in found] == [IndexState.ANSWERED, IndexState.ANSWERED]
        with pytest.raises(Permanent) as refused:
            admin.create(QUEUE)
    assert refused.value.reason is PermanentReason.UNSUPPORTED


def test_a_refused_query_says_which_index_is_missing(tmp_path: Path, project: str) -> None:
    """Where only one of two indexes exists, the other is missing and the link that makes it is given."""
    file = tmp_path / "indexes.json"
    file.write_text(
        '{"indexes": [{"collectionGroup": "reviews", "queryScope": "COLLECTION", "fields": ['
        '{"fieldPath": "userId", "order": "ASCENDING"}, {"fieldPath": "nextReviewAt", "order": "ASCENDING"}]}]}',
        encoding="utf-8",
    )
    with start_sandbox(indexes=file) as sandbox:
        address = DatabaseAddress(project=project, host=sandbox.host)
        with (
            Firestore(address, telemetry=quiet_telemetry()) as firestore,
            IndexAdmin(address, clock=SystemClock(), retry=NO_RETRY) as admin,
        ):
            queue, items = check_indexes(firestore, admin, [QUEUE, ITEMS])
    assert queue.state is IndexState.ANSWERED
    assert items.state is IndexState.MISSING
    assert "https://console.firebase.google.com" in items.detail
