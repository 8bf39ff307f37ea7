"""Queries that production refuses until somebody has made an index."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore.protos import ArrayValue, StructuredQuery, Value
from agent.sandbox import start_sandbox
from agent.sandbox.composite import load_indexes

# The page's own two, and one field of a collection group.
INDEXES = {
    "indexes": [
        {
            "collectionGroup": "reviews",
            "queryScope": "COLLECTION",
            "fields": [
                {"fieldPath": "userId", "order": "ASCENDING"},
                {"fieldPath": "nextReviewAt", "order": "ASCENDING"},
            ],
        },
        {
            "collectionGroup": "review_items",
            "queryScope": "COLLECTION",
            "fields": [
                {"fieldPath": "userId", "order": "ASCENDING"},
                {"fieldPath": "status", "order": "ASCENDING"},
                {"fieldPath": "lastReviewedAt", "order": "DESCENDING"},
            ],
        },
    ],
    "fieldOverrides": [
        {
            "collectionGroup": "progress",
            "fieldPath": "userId",
            "indexes": [{"order": "ASCENDING", "queryScope": "COLLECTION_GROUP"}],
        }
    ],
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file = tmp_path_factory.mktemp("indexes") / "firestore.indexes.json"
    file.write_text(json.dumps(INDEXES))
    with start_sandbox(indexes=file) as process:
        yield process.host


@pytest.fixture
def strict(host: str, project: str, connect: Callable[[str, str], Any]) -> Any:
    """A client of a sandbox that insists on indexes."""
    return connect(host, project)


X = Value(string_value="x")


def test_what_has_an_index_is_answered(strict: Any, where: Callable[..., Any], both: Callable[..., Any]) -> None:
    """Single fields, equalities merged, the page's composites either way round, and walks by name need no more."""
    user, status = where("userId", "EQUAL", X), where("status", "EQUAL", X)
    strict.query("users", where=where("email", "EQUAL", X))
    strict.query("users", where=where("xp", "GREATER_THAN", Value(integer_value=1)), order=["-xp"])
    strict.query("review_items", where=both(user, status, where("word", "EQUAL", X)))
    strict.query("reviews", where=user, order=["nextReviewAt"])
    strict.query("reviews", where=user, order=["-nextReviewAt"])
    strict.query("review_items", where=both(user, status), order=["-lastReviewedAt"])
    strict.query("progress", where=user, descendants=True)
    strict.query(descendants=True, order=["__name__"])


def test_what_has_none_is_refused_with_the_link_that_makes_it(strict: Any, where: Callable[..., Any]) -> None:
    """The message is production's, and its link carries the index: fields, directions, collection."""
    user = where("userId", "EQUAL", X)
    status, text = strict.refused("RunQuery", strict.query_request("lessons", where=user, order=["-level"]))
    assert status == "FAILED_PRECONDITION"
    start, _, encoded = text.rpartition("create_composite=")
    project = strict.database.split("/")[1]
    assert start == (
        "The query requires an index. You can create it here: "
        f"https://console.firebase.google.com/v1/r/project/{project}/firestore/indexes?"
    )
    wanted = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    assert b"collectionGroups/lessons/indexes/_" in wanted
    assert wanted.index(b"userId\x10\x01") < wanted.index(b"level\x10\x02") < wanted.index(b"__name__\x10\x02")


@pytest.mark.parametrize("order", [["-lastReviewedAt", "status"], ["status", "lastReviewedAt"], ["other"]])
def test_an_index_serves_its_own_order_alone(strict: Any, where: Callable[..., Any], order: list[str]) -> None:
    """Other directions, another sequence or another field are other indexes."""
    request = strict.query_request("review_items", where=where("userId", "EQUAL", X), order=order)
    assert strict.refused("RunQuery", request)[0] == "FAILED_PRECONDITION"


def test_each_alternative_needs_its_index(strict: Any, where: Callable[..., Any]) -> None:
    """An OR is as many queries as it has alternatives, and one without an index is enough to refuse it."""
    composite = StructuredQuery.CompositeFilter
    either = [where("userId", "EQUAL", X), where("lesson", "EQUAL", X)]
    condition = StructuredQuery.Filter(composite_filter=composite(op=composite.OR, filters=either))
    request = strict.query_request("reviews", where=condition, order=["nextReviewAt"])
    assert strict.refused("RunQuery", request)[0] == "FAILED_PRECONDITION"
    several = Value(array_value=ArrayValue(values=[X]))
    strict.query("reviews", where=where("userId", "IN", several), order=["nextReviewAt"])


def test_a_collection_group_has_no_index_by_itself(strict: Any, where: Callable[..., Any]) -> None:
    """Across a group even one field needs an index, and the text names field and collection."""
    request = strict.query_request("progress", where=where("percent", "EQUAL", X), descendants=True)
    status, text = strict.refused("RunQuery", request)
    assert status == "FAILED_PRECONDITION"
    assert "requires a COLLECTION_GROUP_ASC index for collection progress and field percent." in text


@pytest.mark.parametrize("content", ["{", "[]", '{"indexes": [{"fields": []}]}', '{"indexes": [{"fields": [{}]}]}'])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    """What can't be read as indexes is an error with the file's name."""
    file = tmp_path / "wrong.json"
    file.write_text(content)
    with pytest.raises(Misconfigured, match=r"wrong\.json") as refusal:
        load_indexes(file)
    assert refusal.value.reason is MisconfiguredReason.DEFINITION
