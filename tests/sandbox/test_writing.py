"""What a write does, on the sandbox and on Google's emulator alike, and what only the sandbox does."""

from __future__ import annotations

from typing import Any

import pytest

from agent.firestore.protos import (
    ArrayValue,
    BatchWriteRequest,
    BeginTransactionRequest,
    CreateDocumentRequest,
    Document,
    DocumentMask,
    DocumentTransform,
    MapValue,
    Precondition,
    TransactionOptions,
    UpdateDocumentRequest,
    Value,
)

Transform = DocumentTransform.FieldTransform


def number(value: int) -> Value:
    return Value(integer_value=value)


def nested(depth: int) -> Value:
    """A map in a map in a map ..."""
    value = number(1)
    for _ in range(depth):
        value = Value(map_value=MapValue(fields={"a": value}))
    return value


def test_a_write_that_changes_nothing_keeps_the_update_time(either: Any) -> None:
    """The same document written again, fields in another order, is a no-op with a commit time of its own."""
    inner = Value(map_value=MapValue(fields={"x": number(1), "y": number(2)}))
    first = either.commit(either.set("a/1", {"p": number(1), "q": inner}))
    turned = Value(map_value=MapValue(fields={"y": number(2), "x": number(1)}))
    second = either.commit(either.set("a/1", {"q": turned, "p": number(1)}))
    assert second.write_results[0].update_time == first.write_results[0].update_time
    assert second.commit_time.ToMicroseconds() > first.commit_time.ToMicroseconds()


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_the_sign_of_zero_is_a_change(wire: Any, value: float) -> None:
    """-0.0 equals 0.0 in queries, but replacing one by the other is a write."""
    first = wire.commit(wire.set("a/1", {"n": Value(double_value=-value)}))
    second = wire.commit(wire.set("a/1", {"n": Value(double_value=value)}))
    assert second.write_results[0].update_time != first.write_results[0].update_time


def test_preconditions(either: Any) -> None:
    """Each precondition that does not hold has its status, and nothing of the commit happens."""
    made = either.commit(either.set("a/1", {"n": number(1)})).write_results[0].update_time
    wrong = Precondition(update_time=made)
    wrong.update_time.seconds -= 1
    for write, status in (
        (either.set("a/1", current_document=Precondition(exists=False)), "ALREADY_EXISTS"),
        (either.set("a/2", current_document=Precondition(exists=True)), "NOT_FOUND"),
        (either.delete("a/2", current_document=Precondition(exists=True)), "NOT_FOUND"),
        (either.set("a/1", current_document=wrong), "FAILED_PRECONDITION"),
        (either.set("a/2", current_document=Precondition(update_time=made)), "FAILED_PRECONDITION"),
        (either.delete("a/1", current_document=wrong), "FAILED_PRECONDITION"),
    ):
        assert either.commit_refused(either.set("b/1"), write)[0] == status
    assert either.query("b") == []
    either.commit(either.delete("a/1", current_document=Precondition(update_time=made)))
    assert either.query("a") == []


def test_batch_write_answers_for_each_write(either: Any) -> None:
    """One write's failure does not touch the others, and every write has its own status."""
    writes = [
        either.set("a/1", {"n": number(1)}),
        either.set("a/2", current_document=Precondition(exists=True)),
        either.delete("a/3"),
    ]
    reply = either.call("BatchWrite", BatchWriteRequest(database=either.database, writes=writes))
    assert [status.code for status in reply.status] == [0, 5, 0]
    assert [result.HasField("update_time") for result in reply.write_results] == [True, False, False]
    assert either.query("a") == ["a/1"]


def test_batch_write_refuses_a_document_twice(either: Any) -> None:
    """Two writes of one document in a BatchWrite are a mistake of the caller."""
    writes = [either.set("a/1"), either.set("a/1")]
    request = BatchWriteRequest(database=either.database, writes=writes)
    status, text = either.refused("BatchWrite", request)
    assert (status, text) == (
        "INVALID_ARGUMENT",
        "the same document cannot be written more than once in a single request",
    )


def test_the_last_write_of_a_commit_wins(either: Any) -> None:
    """A Commit may write one document several times, in order."""
    either.commit(either.set("a/1", {"n": number(1)}), either.set("a/1", {"n": number(2)}))
    either.commit(either.set("a/2"), either.delete("a/2"))
    assert either.get("a/1").fields["n"].integer_value == 2
    assert either.query("a") == ["a/1"]


def test_masks_merge(either: Any) -> None:
    """A masked update sets what it has and deletes what it names and lacks, nested and quoted paths included."""
    either.commit(
        either.set("a/1", {"m": Value(map_value=MapValue(fields={"x": number(1), "y": number(2)})), "s": number(3)})
    )
    changes = {
        "m": Value(map_value=MapValue(fields={"x": number(9), "ignored": number(0)})),
        "odd name": Value(map_value=MapValue(fields={"z": number(5)})),
    }
    mask = DocumentMask(field_paths=["m.x", "s", "`odd name`.z"])
    either.commit(either.set("a/1", changes, update_mask=mask))
    fields = either.get("a/1").fields
    assert sorted(fields) == ["m", "odd name"]
    assert {key: value.integer_value for key, value in fields["m"].map_value.fields.items()} == {"x": 9, "y": 2}
    assert fields["odd name"].map_value.fields["z"].integer_value == 5


def test_transforms(either: Any) -> None:
    """Server-side changes of numbers and arrays give the service's results."""
    array = Value(array_value=ArrayValue(values=[number(1), number(2)]))
    either.commit(
        either.set("a/1", {"n": number(5), "top": number(2**63 - 1), "l": array, "text": Value(string_value="x")})
    )
    transforms = [
        Transform(field_path="n", increment=Value(double_value=0.5)),
        Transform(field_path="top", increment=number(1)),
        Transform(field_path="text", maximum=number(3)),
        Transform(field_path="new", minimum=number(4)),
        Transform(field_path="l", append_missing_elements=ArrayValue(values=[Value(double_value=2.0), number(3)])),
        Transform(field_path="l", remove_all_from_array=ArrayValue(values=[number(1)])),
        Transform(field_path="at", set_to_server_value=Transform.REQUEST_TIME),
    ]
    write = either.set("a/1", update_mask=DocumentMask(), update_transforms=transforms)
    [result] = either.commit(write).write_results
    assert result.transform_results[0].double_value == 5.5
    fields = either.get("a/1").fields
    assert fields["top"].integer_value == 2**63 - 1
    assert fields["text"].integer_value == 3
    assert fields["new"].integer_value == 4
    assert [value.integer_value for value in fields["l"].array_value.values] == [2, 3]
    assert fields["at"].timestamp_value == result.transform_results[6].timestamp_value


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"__x__": number(1)}, "field name __x__ is reserved"),
        ({"": number(1)}, "The property.name is the empty string."),
        ({"n": Value()}, "Cannot convert firestore.v1.Value with type unset."),
        ({"x" * 1_501: number(1)}, "The property.name is longer than 1500 bytes."),
        ({"a": nested(21)}, "Property a contains an invalid nested entity."),
        (
            {"a": Value(array_value=ArrayValue(values=[Value(array_value=ArrayValue())]))},
            "Cannot convert an array value in an array value.",
        ),
    ],
)
def test_documents_that_firestore_does_not_store(either: Any, fields: dict[str, Value], text: str) -> None:
    """Fields the service refuses are refused with its words, however plain the write."""
    assert either.commit_refused(either.set("a/1", fields)) == ("INVALID_ARGUMENT", text)


def test_twenty_levels_are_fine(either: Any) -> None:
    """Values nested as deep as allowed are stored and come back."""
    either.commit(either.set("a/1", {"a": nested(20)}))
    assert either.get("a/1").fields["a"] == nested(20)


def test_the_size_of_a_document_is_limited(wire: Any) -> None:
    """A document of 1 MiB is stored, one above is refused with its size."""
    half = Value(bytes_value=bytes(524_000))
    wire.commit(wire.set("a/1", {"a": half, "b": half}))
    status, text = wire.commit_refused(wire.set("a/1", {"a": half, "b": half, "c": half}))
    assert status == "INVALID_ARGUMENT"
    assert "exceeds the maximum allowed size of 1,048,576 bytes" in text


def test_the_size_of_a_request_is_limited(wire: Any) -> None:
    """More than 10 MiB in one request is INVALID_ARGUMENT, as in production; the emulator stops at 4 MiB."""
    megabyte = {"a": Value(bytes_value=bytes(1_000_000))}
    wire.commit(*(wire.set(f"a/{n}", megabyte) for n in range(10)))
    status, text = wire.commit_refused(*(wire.set(f"a/{n}", megabyte) for n in range(11)))
    assert (status, text) == ("INVALID_ARGUMENT", "Request payload size exceeds the limit: 10485760 bytes.")


def test_single_document_calls(either: Any) -> None:
    """Create, update and delete of one document do what their commit would."""
    create = CreateDocumentRequest(
        parent=either.root, collection_id="a", document_id="1", document=Document(fields={"n": number(1)})
    )
    assert either.call("CreateDocument", create, Document).name == f"{either.root}/a/1"
    assert either.refused("CreateDocument", create, Document)[0] == "ALREADY_EXISTS"
    create.document_id = ""
    assert len(either.call("CreateDocument", create, Document).name.rpartition("/")[2]) == 20
    update = UpdateDocumentRequest(
        document=Document(name=f"{either.root}/a/1", fields={"m": number(2)}),
        update_mask=DocumentMask(field_paths=["m"]),
        mask=DocumentMask(field_paths=["n"]),
    )
    assert sorted(either.call("UpdateDocument", update, Document).fields) == ["n"]
    assert sorted(either.get("a/1").fields) == ["m", "n"]


def test_a_transaction_that_read_stale_data_is_aborted(wire: Any) -> None:
    """Whoever commits second, having read what the first one changed, has to start over."""
    wire.put(a__1={"n": number(1)})
    begin = BeginTransactionRequest(database=wire.database)
    transaction = wire.call("BeginTransaction", begin).transaction
    assert wire.get("a/1", transaction=transaction).fields["n"].integer_value == 1
    wire.put(a__1={"n": number(2)})
    assert wire.get("a/1", transaction=transaction).fields["n"].integer_value == 1
    assert wire.commit_refused(wire.set("b/1"), transaction=transaction)[0] == "ABORTED"
    assert wire.query("b") == []


def test_a_new_document_in_a_queried_collection_is_a_conflict(wire: Any) -> None:
    """A transaction that queried a collection notices a document that appears in it."""
    begin = BeginTransactionRequest(database=wire.database)
    transaction = wire.call("BeginTransaction", begin).transaction
    assert wire.query("a", transaction=transaction) == []
    wire.put(a__1={})
    assert wire.commit_refused(wire.set("b/1"), transaction=transaction)[0] == "ABORTED"


def test_read_only_transactions_don_t_write(either: Any) -> None:
    """A read-only transaction commits nothing."""
    options = TransactionOptions(read_only=TransactionOptions.ReadOnly())
    begin = BeginTransactionRequest(database=either.database, options=options)
    transaction = either.call("BeginTransaction", begin).transaction
    assert either.commit_refused(either.set("b/1"), transaction=transaction)[0] == "INVALID_ARGUMENT"
