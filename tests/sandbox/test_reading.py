"""What reads answer, on the sandbox and on Google's emulator alike, and what only the sandbox does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from agent.firestore.protos import (
    ArrayValue,
    BatchGetDocumentsRequest,
    DocumentMask,
    Int64Value,
    ListCollectionIdsRequest,
    PartitionQueryRequest,
    RunAggregationQueryRequest,
    StructuredAggregationQuery,
    StructuredQuery,
    Timestamp,
    Value,
)

Aggregation = StructuredAggregationQuery.Aggregation
Unary = StructuredQuery.UnaryFilter


def number(value: float) -> Value:
    return Value(integer_value=value) if isinstance(value, int) else Value(double_value=value)


def test_pages_follow_each_other(either: Any) -> None:
    """Tokens lead through a collection in name order, numbered ids first, without gap or repetition."""
    ids = ["__id-2__", "__id7__", "__id10__", "a", "a0", "aé", "b"]
    either.commit(*(either.set(f"c/{i}") for i in ids), either.set("c/a/c/inner"), either.set("c2/x"))
    found, token = [], ""
    for _ in range(10):
        page = either.page("c", page_size=3, page_token=token)
        found += [document.name.rpartition("/")[2] for document in page.documents]
        token = page.next_page_token
        if not token:
            break
    assert found == ids


def test_pages_stay_below_what_a_client_accepts(wire: Any) -> None:
    """A page of large documents ends before 4 MiB, the default limit of gRPC, and the token goes on."""
    wire.commit(*(wire.set(f"c/{n}", {"b": Value(bytes_value=bytes(900_000))}) for n in range(6)))
    page = wire.page("c", page_size=100)
    assert len(page.documents) == 4
    assert len(wire.page("c", page_size=100, page_token=page.next_page_token).documents) == 2


def test_missing_parents_are_shown_on_request(either: Any) -> None:
    """A document that only has documents beneath it is listed when asked for, by name alone."""
    either.commit(either.set("u/a"), either.set("u/gone/p/1"), either.set("only/missing/p/1/q/2"))
    assert [d.name for d in either.page("u").documents] == [f"{either.root}/u/a"]
    shown = either.page("u", show_missing=True).documents
    assert [(d.name.rpartition("/")[2], d.HasField("create_time")) for d in shown] == [("a", True), ("gone", False)]
    [alone] = either.page("only", show_missing=True).documents
    assert alone.name == f"{either.root}/only/missing"


def test_collection_ids(either: Any) -> None:
    """Collections with documents, or with documents somewhere beneath, are named; emptied ones are not."""
    either.commit(either.set("a/1"), either.set("b/gone/c/2"), either.set("d/1"))
    either.commit(either.delete("d/1"))

    def ids(parent: str) -> list[str]:
        return list(either.call("ListCollectionIds", ListCollectionIdsRequest(parent=parent)).collection_ids)

    assert ids(either.root) == ["a", "b"]
    assert ids(f"{either.root}/b/gone") == ["c"]


def test_one_query_finds_everything(either: Any) -> None:
    """A query without a collection id over all descendants walks the database in name order."""
    paths = ["a/1", "a/1/b/1", "a/1/b/1/c/1", "a/10", "a/2/b/1", "b/1", "x/gone/y/1"]
    either.commit(*(either.set(path) for path in reversed(paths)))
    assert either.query(descendants=True, order=["__name__"]) == paths
    assert either.query(parent="a/1", descendants=True) == ["a/1/b/1", "a/1/b/1/c/1"]
    assert either.query("b", descendants=True) == ["a/1/b/1", "a/2/b/1", "b/1"]
    assert either.query("b") == ["b/1"]


def test_name_ranges(either: Any, where: Callable[..., Any], both: Callable[..., Any]) -> None:
    """Bounds on __name__ cut the walk of the whole database exactly, also below a collection."""
    paths = ["a/1", "a/1/b/1", "a/2", "b/1", "c/1"]
    either.commit(*(either.set(path) for path in paths))

    def between(low: str, high: str) -> list[str]:
        at_least = where("__name__", "GREATER_THAN_OR_EQUAL", Value(reference_value=f"{either.root}/{low}"))
        below = where("__name__", "LESS_THAN", Value(reference_value=f"{either.root}/{high}"))
        return list(either.query(descendants=True, where=both(at_least, below)))

    assert between("a/1", "b/1") == ["a/1", "a/1/b/1", "a/2"]
    assert between("a/1/a/9", "a/1/b/2") == ["a/1/b/1"]
    assert between("a/2", "a/2") == []


def test_reading_the_past(either: Any) -> None:
    """Every reading call at a time gives the state of then."""
    then = either.put(a__1={"n": number(1)}, a__2={"n": number(2)})
    either.commit(either.delete("a/1"), either.set("a/2", {"n": number(9)}), either.set("a/3"), either.set("b/1"))
    assert either.query("a", read_time=then) == ["a/1", "a/2"]
    assert either.query(descendants=True, read_time=then) == ["a/1", "a/2"]
    assert [d.fields["n"].integer_value for d in either.page("a", read_time=then).documents] == [1, 2]
    assert either.get("a/1", read_time=then).fields["n"].integer_value == 1
    names = [f"{either.root}/a/1", f"{either.root}/a/3"]
    request = BatchGetDocumentsRequest(database=either.database, documents=names, read_time=then)
    assert {r.missing or r.found.name: bool(r.missing) for r in either.call("BatchGetDocuments", request)} == {
        names[0]: False,
        names[1]: True,
    }
    ids = ListCollectionIdsRequest(parent=either.root, read_time=then)
    assert list(either.call("ListCollectionIds", ids).collection_ids) == ["a"]
    assert _aggregate(either, "a", read_time=then)["count"].integer_value == 2


def test_read_times_out_of_reach(either: Any) -> None:
    """The far past and the future are refused."""
    for moment, status in (
        (Timestamp(seconds=1_700_000_000), "FAILED_PRECONDITION"),
        (Timestamp(seconds=4_000_000_000), "INVALID_ARGUMENT"),
    ):
        assert either.refused("ListDocuments", either.page_request("a", read_time=moment))[0] == status


def test_projections(either: Any) -> None:
    """Masks and projections send what was asked for; keys-only reads keep name and times."""
    either.put(a__1={"n": number(1), "m": number(2)})
    assert sorted(either.get("a/1", mask=DocumentMask(field_paths=["m", "none"])).fields) == ["m"]
    request = either.query_request("a")
    request.structured_query.select.fields.add(field_path="__name__")
    [reply] = either.call("RunQuery", request)
    assert reply.document.name == f"{either.root}/a/1"
    assert reply.document.update_time == either.get("a/1").update_time
    assert not reply.document.fields


def test_filters(either: Any, where: Callable[..., Any]) -> None:
    """Comparisons stay within their type; null and NaN compare with nothing; arrays are looked into."""
    values = {
        "a": Value(null_value=0),
        "b": number(math.nan),
        "c": number(1),
        "d": number(2.5),
        "e": Value(string_value="x"),
        "f": Value(array_value=ArrayValue(values=[number(1)])),
    }
    either.put(**{f"v__{key}": {"v": value} for key, value in values.items()}, v__none={"other": number(1)})

    def found(op: str, value: Value) -> str:
        return "".join(path[2:] for path in either.query("v", where=where("v", op, value)))

    def several(*operands: Value) -> Value:
        return Value(array_value=ArrayValue(values=operands))

    assert found("EQUAL", number(1.0)) == "c"
    assert found("EQUAL", Value(null_value=0)) == ""
    assert found("GREATER_THAN", number(1)) == "d"
    assert found("LESS_THAN_OR_EQUAL", number(3)) == "cd"
    assert found("NOT_EQUAL", number(1)) == "bdef"
    assert found("IN", several(number(1), Value(null_value=0), Value(string_value="x"))) == "ce"
    assert found("NOT_IN", several(number(1))) == "bdef"
    assert found("NOT_IN", several(number(1), Value(null_value=0))) == ""
    assert found("ARRAY_CONTAINS", number(1)) == "f"
    for op, expected in ((Unary.IS_NULL, "a"), (Unary.IS_NAN, "b"), (Unary.IS_NOT_NULL, "bcdef")):
        field = StructuredQuery.FieldReference(field_path="v")
        question = StructuredQuery.Filter(unary_filter=Unary(field=field, op=op))
        assert "".join(path[2:] for path in either.query("v", where=question)) == expected


def test_orders_and_cursors(either: Any) -> None:
    """Order by several fields, either way, from one position to another."""
    either.put(**{f"o__{n}": {"n": number(n // 2), "m": number(n)} for n in range(6)}, o__x={"m": number(9)})
    assert either.query("o", order=["-n", "m"]) == ["o/4", "o/5", "o/2", "o/3", "o/0", "o/1"]
    request = either.query_request("o", order=["n"], limit=2)
    request.structured_query.start_at.values.append(number(1))
    request.structured_query.start_at.before = True
    request.structured_query.end_at.values.append(number(1))
    replies = either.call("RunQuery", request)
    assert [r.document.name.rpartition("/")[2] for r in replies] == ["2", "3"]
    assert replies[-1].done


def test_offset_and_limit(either: Any) -> None:
    """An offset is reported with the first result; past the end there is only a read time."""
    either.put(a__1={}, a__2={}, a__3={})
    request = either.query_request("a", limit=2)
    request.structured_query.offset = 1
    reply, _ = either.call("RunQuery", request)
    assert (reply.document.name, reply.skipped_results) == (f"{either.root}/a/2", 1)
    request.structured_query.offset = 5
    [reply] = either.call("RunQuery", request)
    assert not reply.HasField("document")
    assert reply.HasField("read_time")


def _aggregate(wire: Any, collection: str, **options: Any) -> dict[str, Value]:
    """Count, sum and average of field n."""
    query = StructuredQuery()
    query.from_.add(collection_id=collection)
    field = StructuredQuery.FieldReference(field_path="n")
    wanted = [
        Aggregation(alias="count", count=Aggregation.Count()),
        Aggregation(alias="two", count=Aggregation.Count(up_to=Int64Value(value=2))),
        Aggregation(alias="sum", sum=Aggregation.Sum(field=field)),
        Aggregation(alias="average", avg=Aggregation.Avg(field=field)),
    ]
    question = StructuredAggregationQuery(structured_query=query, aggregations=wanted)
    request = RunAggregationQueryRequest(parent=wire.root, structured_aggregation_query=question, **options)
    [reply] = wire.call("RunAggregationQuery", request)
    return dict(reply.result.aggregate_fields)


def test_aggregations(either: Any) -> None:
    """Numbers are summed exactly or as doubles; others add nothing; documents without the field don't count."""
    either.put(a__1={"n": number(2)}, a__2={"n": number(0.5)}, a__3={"n": Value(string_value="x")}, a__4={})
    result = _aggregate(either, "a")
    assert (result["count"].integer_value, result["two"].integer_value) == (3, 2)
    assert (result["sum"].double_value, result["average"].double_value) == (2.5, 1.25)
    nothing = _aggregate(either, "none")
    assert nothing["sum"].integer_value == 0
    assert nothing["average"].WhichOneof("value_type") == "null_value"


def test_partitions_cut_a_query_into_even_parts(wire: Any) -> None:
    """The cursors of PartitionQuery split a collection group, and the whole database, by names in order."""
    wire.commit(*(wire.set(f"a/{n:02}") for n in range(40)), *(wire.set(f"x/{n}/a/1") for n in range(10)))
    for collection in ("a", ""):
        query = wire.query_request(collection, descendants=True, order=["__name__"]).structured_query
        request = PartitionQueryRequest(parent=wire.root, structured_query=query, partition_count=4)
        cursors = [c.values[0].reference_value for c in wire.call("PartitionQuery", request).partitions]
        assert [name.removeprefix(wire.root) for name in cursors] == ["/a/10", "/a/20", "/a/30", "/x/0/a/1"]


@pytest.mark.parametrize("descending", [False, True])
def test_an_index_changes_nothing_but_the_time(
    wire: Any, where: Callable[..., Any], both: Callable[..., Any], descending: bool
) -> None:
    """A collection large enough to be indexed answers as before, through changes and deletes, in any group."""
    size = 260
    colors = [Value(string_value=name) for name in ("red", "green", "blue")]
    wire.commit(*(wire.set(f"a/{n:03}", {"c": colors[n % 3], "n": number(n)}) for n in range(size)))
    wire.commit(wire.set("x/1/a/1", {"c": colors[0], "n": number(-1)}))
    order = "-n" if descending else "n"

    def red(**options: Any) -> list[str]:
        condition = both(where("c", "EQUAL", colors[0]), where("n", "LESS_THAN", number(9)))
        return list(wire.query("a", where=condition, order=[order], **options))

    def turned(paths: list[str]) -> list[str]:
        return paths[::-1] if descending else paths

    assert red() == turned(["a/000", "a/003", "a/006"])
    assert red(descendants=True) == turned(["x/1/a/1", "a/000", "a/003", "a/006"])
    then = wire.commit(wire.delete("a/000"), wire.set("a/003", {"c": colors[1], "n": number(3)})).commit_time
    wire.commit(
        wire.set("a/002", {"c": colors[0], "n": number(2)}), wire.set("a/new", {"c": colors[0], "n": number(5)})
    )
    assert red() == turned(["a/002", "a/new", "a/006"])
    assert red(read_time=then) == ["a/006"]
