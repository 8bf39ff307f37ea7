"""What a write leaves behind: the same against the sandbox and against Google's emulator."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.faults import PermanentReason
from agent.firestore import (
    Batch,
    Firestore,
    GeoPoint,
    LazyFields,
    MustExist,
    MustExistAt,
    MustNotExist,
    Opaque,
    PlannedWrite,
    RawDocument,
    Reference,
    Timestamp,
    Vector,
    WriteKind,
    WriteOutcome,
    WriteState,
    canonical,
    decode_fields,
    encode_fields,
    read_maintenance,
    set_maintenance,
)
from agent.telemetry import Telemetry

_EVERY_KIND: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "least": -(2**63),
    "most": 2**63 - 1,
    "above 2^53": 2**53 + 1,
    "one as integer": 1,
    "one as double": 1.0,
    "minus zero": -0.0,
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "smallest double": 5e-324,
    "empty string": "",
    "unicode": "日本語 \U0001f600 \u0000 e\u0301",
    "bytes": b"\x00\xff",
    "empty bytes": b"",
    "timestamp": Timestamp(1_757_491_200_123_456_000),
    "before 1970": Timestamp(-1_000_000_000),
    "far": Timestamp(253_402_300_799_999_999_000),
    "reference": Reference("projects/p/databases/(default)/documents/users/u1"),
    "geopoint": GeoPoint(-90.0, 180.0),
    "geopoint zero": GeoPoint(0.0, -0.0),
    "array": [1, 1.0, "1", None, {"a": []}],
    "empty array": [],
    "map": {"b": 1, "a": {"c": [b"x"]}},
    "empty map": {},
    "vector": Vector((1.0, -0.0, 3.5)),
    "a.b `c`\\": "odd key",
}


def _name(firestore: Firestore, path: str = "users/u1") -> str:
    return firestore.address.name(path)


def _one(firestore: Firestore, write: PlannedWrite) -> WriteOutcome:
    [outcome] = firestore.write([write])
    return outcome


def _set(firestore: Firestore, value: object, path: str = "users/u1") -> int:
    outcome = _one(firestore, PlannedWrite(name=_name(firestore, path), fields=encode_fields({"v": value})))
    assert outcome.state is WriteState.APPLIED
    assert outcome.update_time is not None
    return outcome.update_time


def _read(firestore: Firestore, path: str = "users/u1") -> RawDocument | None:
    name = _name(firestore, path)
    return firestore.get([name])[name]


@pytest.mark.parametrize("kind", _EVERY_KIND)
def test_every_kind_of_value_comes_back_bit_by_bit(firestore: Firestore, kind: str) -> None:
    """Written and read as bytes; the peers lose bytes, NaN, -0.0, large integers and 1.0."""
    fields = encode_fields({"value": _EVERY_KIND[kind]})
    assert _one(firestore, PlannedWrite(name=_name(firestore), fields=fields)).state is WriteState.APPLIED
    document = _read(firestore)
    assert document is not None
    assert canonical(document.fields) == fields


def test_all_kinds_at_once_and_under_odd_keys(firestore: Firestore) -> None:
    """One document that holds them all."""
    fields = encode_fields(_EVERY_KIND)
    _one(firestore, PlannedWrite(name=_name(firestore), fields=fields))
    document = _read(firestore)
    assert document is not None
    assert canonical(document.fields) == fields
    assert decode_fields(document.fields).keys() == _EVERY_KIND.keys()


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.binary(max_size=10),
    st.builds(GeoPoint, st.floats(-90, 90), st.floats(-180, 180)),
)
_KEYS = st.text("ab.é` 0", min_size=1, max_size=4)
_MAPS = st.dictionaries(
    _KEYS, st.one_of(_SCALARS, st.lists(_SCALARS, max_size=3), st.dictionaries(_KEYS, _SCALARS, max_size=3)), max_size=4
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(_MAPS, min_size=20, max_size=20))
def test_any_document_comes_back_bit_by_bit(firestore: Firestore, contents: list[dict[str, Any]]) -> None:
    """Whatever Hypothesis thinks of."""
    writes = [
        PlannedWrite(name=_name(firestore, f"users/u{n}"), fields=encode_fields(fields))
        for n, fields in enumerate(contents)
    ]
    assert firestore.write(writes).finish().applied == len(writes)
    found = firestore.get([write.name for write in writes])
    for write in writes:
        document = found[write.name]
        assert document is not None
        assert _with_one_nan(document.fields) == _with_one_nan(write.fields)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.tuples(_MAPS, _MAPS, st.booleans()), min_size=20, max_size=20))
def test_a_patch_leaves_what_the_whole_document_would(
    firestore: Firestore, contents: list[tuple[dict[str, Any], dict[str, Any], bool]]
) -> None:
    """Fields set, replaced and removed by a mask, whatever they are called and hold, and those beside them."""
    first = [{**before, "beside": "x" * 2_000} for before, _, _ in contents]
    names = [_name(firestore, f"users/u{n}") for n in range(len(contents))]
    started = [PlannedWrite(name=name, fields=encode_fields(one)) for name, one in zip(names, first, strict=True)]
    assert firestore.write(started).finish().applied == len(names)
    there = firestore.get(names)
    writes: list[PlannedWrite] = []
    then: list[dict[str, Any]] = []
    for name, (_, after, keeps) in zip(names, contents, strict=True):
        document = there[name]
        assert document is not None
        lazy = LazyFields(document.raw)
        then.append({**(lazy.all() if keeps else {"beside": lazy.get("beside")}), **after, "new": True})
        condition = MustExistAt(document.update_time)
        write = PlannedWrite(name=name, precondition=condition, patch=lazy.patch_as(then[-1]), base=document.raw)
        assert len(write.encoded()) < 1_500, "the patch was not sent"
        writes.append(write)
    assert firestore.write(writes).finish().applied == len(writes)
    found = firestore.get(names)
    for write, one in zip(writes, then, strict=True):
        document = found[write.name]
        assert document is not None
        assert _with_one_nan(document.fields) == _with_one_nan(encode_fields(one))


def _with_one_nan(fields: bytes) -> bytes:
    """The sign of a NaN is the one bit that Google's emulator doesn't keep."""
    return encode_fields(_one_nan(decode_fields(fields)))


def _one_nan(value: Any) -> Any:
    match value:
        case float():
            return math.nan if math.isnan(value) else value
        case list():
            return [_one_nan(element) for element in value]
        case dict():
            return {key: _one_nan(element) for key, element in value.items()}
        case _:
            return value


def test_an_empty_document_exists(firestore: Firestore) -> None:
    """A document without fields is not a missing document."""
    assert _one(firestore, PlannedWrite(name=_name(firestore))).state is WriteState.APPLIED
    document = _read(firestore)
    assert document is not None
    assert document.fields == b""
    assert document.update_time == document.create_time > 0


def test_documents_of_nearly_a_mebibyte(firestore: Firestore) -> None:
    """Several of them: batches stay under what the server takes, and one that is too large is rejected alone."""
    writes = [
        PlannedWrite(name=_name(firestore, f"big/b{n}"), fields=encode_fields({"v": b"x" * size}))
        for n, size in enumerate([1_040_000] * 9 + [1_100_000] + [10])
    ]
    states = {outcome.name: outcome.state for outcome in firestore.write(writes)}
    assert [states[write.name] for write in writes] == [WriteState.APPLIED] * 9 + [
        WriteState.REJECTED,
        WriteState.APPLIED,
    ]
    for write in (writes[0], writes[8]):
        document = firestore.get([write.name])[write.name]
        assert document is not None
        assert canonical(document.fields) == write.fields


@pytest.mark.parametrize(
    "path", ["users/__reserved__", "users/..", "users", "users/u1/items", "__x__/a", "users/__id0__"]
)
def test_names_that_firestore_does_not_allow_are_rejected_alone(firestore: Firestore, path: str) -> None:
    """The neighbours in the batch are written."""
    writes = [
        PlannedWrite(name=_name(firestore, p), fields=encode_fields({"v": 1})) for p in ("users/a", path, "users/b")
    ]
    states = [outcome.state for outcome in firestore.write(writes)]
    assert sorted(states) == [WriteState.APPLIED, WriteState.APPLIED, WriteState.REJECTED]


def test_must_exist_at(firestore: Firestore) -> None:
    """Only the version that was meant; a version since, or a deletion since, is a conflict and stays."""
    first = _set(firestore, 1)
    write = PlannedWrite(name=_name(firestore), fields=encode_fields({"v": 2}), precondition=MustExistAt(first))
    applied = _one(firestore, write)
    assert applied.state is WriteState.APPLIED
    stale = _one(firestore, write)
    assert (stale.state, stale.ambiguous) == (WriteState.CONFLICT, False)
    gone = PlannedWrite(name=_name(firestore), kind=WriteKind.DELETE, precondition=MustExistAt(first))
    assert _one(firestore, gone).state is WriteState.CONFLICT
    document = _read(firestore)
    assert document is not None
    assert decode_fields(document.fields) == {"v": 2}
    assert document.update_time == applied.update_time
    assert applied.update_time is not None
    now = PlannedWrite(name=_name(firestore), kind=WriteKind.DELETE, precondition=MustExistAt(applied.update_time))
    assert _one(firestore, now).state is WriteState.APPLIED
    assert _read(firestore) is None
    assert _one(firestore, now).state is WriteState.CONFLICT
    assert _one(firestore, write).state is WriteState.CONFLICT


def test_must_exist_and_must_not_exist(firestore: Firestore) -> None:
    """Creating what is there and changing what isn't are conflicts."""
    create = PlannedWrite(name=_name(firestore), fields=encode_fields({"v": 1}), precondition=MustNotExist())
    change = PlannedWrite(name=_name(firestore), fields=encode_fields({"v": 2}), precondition=MustExist())
    assert _one(firestore, change).state is WriteState.CONFLICT
    assert _one(firestore, create).state is WriteState.APPLIED
    assert _one(firestore, create).state is WriteState.CONFLICT
    assert _one(firestore, change).state is WriteState.APPLIED


def test_each_write_of_a_batch_has_its_own_end(firestore: Firestore) -> None:
    """BatchWrite is not atomic: a conflict leaves its neighbours alone."""
    at = _set(firestore, 1, "users/u1")
    _set(firestore, 2, "users/u1")
    writes = [
        PlannedWrite(name=_name(firestore, "users/u1"), fields=b"", precondition=MustExistAt(at)),
        PlannedWrite(name=_name(firestore, "users/u2"), fields=b""),
        PlannedWrite(name=_name(firestore, "users/u3"), kind=WriteKind.DELETE),
        PlannedWrite(name=_name(firestore, "users/u4"), fields=b"", precondition=MustExist()),
    ]
    states = [outcome.state for outcome in firestore.write(writes)]
    assert states == [WriteState.CONFLICT, WriteState.APPLIED, WriteState.APPLIED, WriteState.CONFLICT]


def test_a_write_that_changes_nothing_keeps_the_update_time(firestore: Firestore) -> None:
    """So an incremental doesn't see it, and a second attempt of our own write passes its own precondition."""
    first = _set(firestore, 1)
    assert _set(firestore, 1) == first
    write = PlannedWrite(name=_name(firestore), fields=encode_fields({"v": 1}), precondition=MustExistAt(first))
    assert _one(firestore, write).update_time == first
    second = _set(firestore, 2)
    assert second > first
    document = _read(firestore)
    assert document is not None
    assert document.update_time == second
    assert document.create_time == first


def test_update_times_are_whole_microseconds_and_grow(firestore: Firestore) -> None:
    """A read_time has microseconds, so an update_time must not have more."""
    times = [_set(firestore, n) for n in range(20)]
    assert times == sorted(set(times))
    assert all(time % 1000 == 0 for time in times)


def test_a_deleted_document_is_gone_and_may_come_back(firestore: Firestore) -> None:
    """With a new create_time; what is beneath it stays."""
    _set(firestore, 1, "users/u1")
    _set(firestore, 1, "users/u1/items/i1")
    before = _read(firestore)
    outcome = _one(firestore, PlannedWrite(name=_name(firestore), kind=WriteKind.DELETE))
    assert (outcome.state, outcome.update_time) == (WriteState.APPLIED, None)
    assert _read(firestore) is None
    assert [firestore.address.relative(d.name) for d in firestore.documents()] == ["users/u1/items/i1"]
    _set(firestore, 1, "users/u1")
    after = _read(firestore)
    assert before is not None
    assert after is not None
    assert after.create_time > before.create_time


def test_a_kind_of_value_that_does_not_exist_yet_is_not_lost_silently(firestore: Firestore) -> None:
    """The server may refuse it; if it takes it, it keeps it."""
    unknown = Opaque(bytes.fromhex("c23e03616263"))
    outcome = _one(firestore, PlannedWrite(name=_name(firestore), fields=encode_fields({"v": unknown})))
    if outcome.state is WriteState.APPLIED:
        document = _read(firestore)
        assert document is not None
        assert decode_fields(document.fields) == {"v": unknown}
    else:
        assert outcome.state is WriteState.REJECTED
        assert outcome.reason is PermanentReason.INVALID


def test_five_thousand_writes_with_an_observer(firestore: Firestore, telemetry: Telemetry) -> None:
    """Journalled before, known after, balanced, counted."""
    told: list[tuple[str, int]] = []

    class Journal:
        def before(self, batch: Batch) -> None:
            told.append(("before", batch.number))

        def after(self, batch: Batch, outcomes: tuple[WriteOutcome, ...]) -> None:
            assert all(outcome.update_time for outcome in outcomes)
            told.append(("after", batch.number))

    fields = encode_fields({"v": "x" * 500})
    writes = (PlannedWrite(name=_name(firestore, f"users/u{n:05d}"), fields=fields) for n in range(5000))
    ledger = firestore.write(writes, origin="migration", on_batch=Journal()).finish()
    assert ledger.applied == ledger.planned == 5000
    assert len(told) == 20
    assert all(told.index(("before", n)) < told.index(("after", n)) for n in range(1, 11))
    assert firestore.count() == 5000
    families = {family.name: family for family in telemetry.families()}
    [sample] = [s for s in families["firestore_documents_written"].samples if s.name.endswith("_total")]
    assert (sample.labels["origin"], sample.value) == ("migration", 5000)
    operations = {s.labels["db_operation_name"] for s in families["db_client_operation_duration_seconds"].samples}
    assert operations == {"BatchWrite", "RunAggregationQuery"}


def test_maintenance_mode(firestore: Firestore) -> None:
    """On, off, and never set; also when the page's own command wrote it."""
    assert not read_maintenance(firestore).enabled
    now = firestore.server_time()
    on = set_maintenance(firestore, enabled=True, now=now, message="Database migration in progress", by="test")
    assert read_maintenance(firestore) == on
    _one(
        firestore,
        PlannedWrite(name=_name(firestore, "_config/maintenance"), fields=encode_fields({"enabled": True})),
    )
    assert read_maintenance(firestore).enabled
    off = set_maintenance(firestore, enabled=False, now=now)
    assert read_maintenance(firestore) == off
