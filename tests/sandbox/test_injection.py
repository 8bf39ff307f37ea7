"""What a fault does to a message, without a wire."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.firestore.protos import BatchWriteRequest, CommitRequest, Document, Value
from agent.sandbox.injection import (
    Delay,
    Direction,
    Fail,
    Fault,
    FaultKind,
    Message,
    Pass,
    Replace,
    Spare,
    decide,
)

MIGRATED = b"..schemaVersion.."


def response(payload: bytes = MIGRATED, *, method: str = "RunQuery", ordinal: int = 1) -> Message:
    return Message(method, Direction.RESPONSE, payload, ordinal)


def document(index: int, *, migrated: bool = True, **fields: Any) -> Any:
    named = {key: _value(value) for key, value in fields.items()}
    if migrated:
        named["schemaVersion"] = Value(integer_value=2)
    return Document(name=f"projects/p/databases/(default)/documents/users/u{index}", fields=named)


def commit(*documents: Any) -> bytes:
    request = CommitRequest(database="projects/p/databases/(default)", writes=[{"update": d} for d in documents])
    return request.SerializeToString()


def corruption(share: float = 1.0, seed: int = 0) -> Fault:
    return Fault(kind=FaultKind.CORRUPTION, share=share, seed=seed)


def damage(fault: Fault, payload: bytes, method: str = "Commit") -> bytes:
    verdict = decide(fault, Message(method, Direction.REQUEST, payload), Random(0))
    return verdict.payload if isinstance(verdict, Replace) else payload


def _value(value: Any) -> Any:
    return Value(integer_value=value) if isinstance(value, int) else Value(string_value=value)


def test_a_read_of_a_migrated_document_fails_with_the_status_asked_for() -> None:
    """An errors fault of share 1 turns a response with the marker into its status."""
    fault = Fault(kind=FaultKind.ERRORS, share=1.0, code="INTERNAL")
    verdict = decide(fault, response(), Random(0))
    assert isinstance(verdict, Fail)
    assert verdict.code is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    "message",
    [
        response(b"a document that was never migrated"),
        response(method="Commit"),
        Message("RunQuery", Direction.REQUEST, MIGRATED),
    ],
)
def test_whatever_is_not_a_response_with_a_migrated_document_passes(message: Message) -> None:
    """No marker, no read, or the wrong direction: the fault has nothing to bite on."""
    assert decide(Fault(kind=FaultKind.ERRORS, share=1.0), message, Random(0)) == Pass()


def test_the_share_is_a_share_of_calls_and_the_seed_repeats_it() -> None:
    """Of 1,000 calls about 60 % fail, and the same seed picks the same ones."""
    fault = Fault(kind=FaultKind.ERRORS, share=0.6)

    def run(seed: int) -> list[bool]:
        dice = Random(seed)
        return [isinstance(decide(fault, response(), dice), Fail) for _ in range(1000)]

    assert 550 < sum(run(1)) < 650
    assert run(1) == run(1)


def test_a_call_that_the_dice_let_go_is_not_asked_about_again() -> None:
    """Spare differs from Pass: the call's further messages are let through without another throw."""
    assert decide(Fault(kind=FaultKind.ERRORS, share=0.0), response(), Random(0)) == Spare()


def test_every_third_batch_is_counted_not_diced() -> None:
    """``every=3`` bites the calls numbered 3, 6 and 9."""
    fault = Fault(kind=FaultKind.ERRORS, marker=b"", every=3, methods=("BatchWrite",), direction=Direction.REQUEST)
    bitten = [
        ordinal
        for ordinal in range(1, 10)
        if isinstance(decide(fault, Message("BatchWrite", Direction.REQUEST, b"", ordinal), Random(0)), Fail)
    ]
    assert bitten == [3, 6, 9]


def test_an_error_on_the_response_of_a_write_means_applied_but_unknown() -> None:
    """The direction decides whether the write was applied: the request passes, its answer is withheld."""
    fault = Fault(
        kind=FaultKind.ERRORS,
        marker=b"",
        share=1.0,
        code="DEADLINE_EXCEEDED",
        methods=("Commit",),
        direction=Direction.RESPONSE,
    )
    assert decide(fault, Message("Commit", Direction.REQUEST, b"x"), Random(0)) == Pass()
    assert isinstance(decide(fault, Message("Commit", Direction.RESPONSE, b"x"), Random(0)), Fail)


def test_latency_delays_and_a_blackhole_delays_for_ever() -> None:
    """Both are delays: of the fault's seconds, and of no end."""
    assert decide(Fault(kind=FaultKind.LATENCY, share=1.0, delay=0.7), response(), Random(0)) == Delay(0.7)
    hole = Fault(kind=FaultKind.BLACKHOLE, marker=b"", share=1.0)
    assert decide(hole, Message("Listen", Direction.REQUEST, b""), Random(0)) == Delay(math.inf)


def test_damage_changes_one_value_and_keeps_name_marker_and_length() -> None:
    """A damaged Commit still parses; each document differs from what was sent in one field and nothing else."""
    sent = [document(i, title=f"title {i}", count=i, kanji="日本語") for i in range(50)]
    payload = commit(*sent)
    damaged = damage(corruption(), payload)
    received = [write.update for write in CommitRequest.FromString(damaged).writes]
    assert len(damaged) == len(payload)
    for before, after in zip(sent, received, strict=True):
        changed = [key for key in before.fields if before.fields[key] != after.fields[key]]
        assert after.name == before.name
        assert len(changed) == 1
        assert changed != ["schemaVersion"]


def test_damage_hits_a_share_of_the_documents_whatever_the_batch() -> None:
    """About 5 % of the documents are damaged, the same ones when the batches are cut differently."""
    sent = [document(i, title=f"title {i}") for i in range(2000)]
    fault = corruption(share=0.05, seed=7)
    whole = [w.update for w in CommitRequest.FromString(damage(fault, commit(*sent))).writes]
    apart = [CommitRequest.FromString(damage(fault, commit(d))).writes[0].update for d in sent]
    assert whole == apart
    assert 60 < sum(before != after for before, after in zip(sent, whole, strict=True)) < 140


def test_documents_without_the_marker_are_not_damaged() -> None:
    """In a mixed batch only the migrated document is touched, so that an undo writes what it means to write."""
    sent = [document(1, migrated=False, title="before"), document(2, title="after")]
    verdict = decide(corruption(), Message("Commit", Direction.REQUEST, commit(*sent)), Random(0))
    assert isinstance(verdict, Replace)
    assert verdict.documents == 1
    assert CommitRequest.FromString(verdict.payload).writes[0].update == sent[0]


def test_a_document_with_nothing_to_change_is_left_alone() -> None:
    """Only the marker and an empty text: no candidate, no damage."""
    payload = commit(document(1, empty=""))
    assert damage(corruption(), payload) == payload


def test_values_within_maps_are_damaged_too() -> None:
    """All that a masked write may hold beside the marker."""
    sent = document(1)
    sent.fields["memory"].map_value.fields["repetitions"].integer_value = 4
    sent.fields["memory"].map_value.fields["within"].map_value.fields["text"].string_value = "a"
    seen = set()
    for seed in range(40):
        received = CommitRequest.FromString(damage(corruption(seed=seed), commit(sent))).writes[0].update
        assert received.fields["schemaVersion"] == sent.fields["schemaVersion"]
        memory = received.fields["memory"].map_value.fields
        seen.add((memory["repetitions"].integer_value, memory["within"].map_value.fields["text"].string_value))
    assert seen == {(5, "a"), (4, "`")}


def test_batch_writes_are_damaged_too() -> None:
    """BatchWrite keeps its writes under the same field number as Commit."""
    request = BatchWriteRequest(database="d", writes=[{"update": document(1, title="t")}])
    payload = request.SerializeToString()
    assert BatchWriteRequest.FromString(damage(corruption(), payload, "BatchWrite")) != request


@given(st.binary(max_size=200), st.sampled_from(["Commit", "BatchWrite", "Write", "UpdateDocument"]))
def test_any_bytes_are_survived(noise: bytes, method: str) -> None:
    """Bytes that are no message pass or keep their length; they never raise."""
    payload = noise + b"schemaVersion" + noise[::-1]
    assert len(damage(corruption(), payload, method)) == len(payload)


@given(
    text=st.text(max_size=30),
    number=st.integers(min_value=-(2**63), max_value=2**63 - 1),
    seed=st.integers(min_value=0, max_value=1000),
)
def test_any_document_stays_a_document(text: str, number: int, seed: int) -> None:
    """Whatever the values are, the damaged message parses to documents with the same fields and types."""
    sent = document(1, text=text, number=number)
    received = CommitRequest.FromString(damage(corruption(seed=seed), commit(sent))).writes[0].update
    kinds = {key: value.WhichOneof("value_type") for key, value in sent.fields.items()}
    assert {key: value.WhichOneof("value_type") for key, value in received.fields.items()} == kinds
    assert received != sent


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=FaultKind.ERRORS),
        Fault(kind=FaultKind.CORRUPTION, marker=b"\xff\x00", share=0.05, seed=3),
        Fault(kind=FaultKind.LATENCY, methods=("Commit",), direction=Direction.REQUEST, every=3, delay=1.5),
    ],
)
def test_a_fault_survives_the_control_channel(fault: Fault) -> None:
    """What the proxy reads is what was sent."""
    assert Fault.from_json(fault.to_json()) == fault


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"code": "NO_SUCH_STATUS"}])
def test_a_fault_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """A share outside 0..1 and a status that gRPC doesn't have are programming errors."""
    with pytest.raises(ValueError, match=r"share|status"):
        Fault(kind=FaultKind.ERRORS, **wrong)
