"""A real connection in bad weather: a proxy that breaks calls, a server that is restarted, an index that is missing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore import (
    EVERYTHING,
    DatabaseAddress,
    Firestore,
    MustExistAt,
    MustNotExist,
    PlannedWrite,
    RetryPolicy,
    WriteState,
    encode_fields,
    take_fingerprint,
)
from agent.firestore.protos import StructuredQuery, Value
from agent.sandbox import start_sandbox
from agent.sandbox.companions import ProxyProcess, start_proxy
from agent.sandbox.injection import Direction, Fault, FaultKind
from agent.telemetry import quiet_telemetry

_QUICK = RetryPolicy(first=0.01, ceiling=0.1, budget=20.0)


class Running(Protocol):
    @property
    def host(self) -> str: ...


def _open(host: str, project: str) -> Firestore:
    return Firestore(
        DatabaseAddress(project=project, host=host), telemetry=quiet_telemetry(), origin="test", retry=_QUICK
    )


def _writes(firestore: Firestore, value: int, *, count: int = 2000) -> Iterator[PlannedWrite]:
    for n in range(count):
        name = firestore.address.name("users", f"u{n:05d}")
        yield PlannedWrite(name=name, fields=encode_fields({"v": value, "n": n}), precondition=MustNotExist())


@pytest.fixture
def proxy(sandbox: Running) -> Iterator[ProxyProcess]:
    """Between the client and the sandbox."""
    with start_proxy(sandbox.host) as process:
        yield process


@pytest.mark.parametrize(
    "direction",
    [
        pytest.param(Direction.REQUEST, id="lost before it arrived"),
        pytest.param(Direction.RESPONSE, id="applied, but the answer was lost"),
    ],
)
@pytest.mark.parametrize("code", ["UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"])
def test_every_third_batch_failing_loses_nothing(
    proxy: ProxyProcess, project: str, code: str, direction: Direction
) -> None:
    """Creations, each of which may succeed once only: all applied, the totals balance, the documents are there."""
    fault = Fault(kind=FaultKind.ERRORS, marker=b"", every=3, code=code, methods=("BatchWrite",), direction=direction)
    with _open(proxy.host, project) as firestore:
        proxy.inject(fault)
        ledger = firestore.write(_writes(firestore, 1), batch_count=50).finish()
        proxy.clear()
        assert ledger.applied == ledger.planned == 2000
        assert firestore.count() == 2000


def test_conditional_updates_in_bad_weather_are_applied_once(proxy: ProxyProcess, project: str) -> None:
    """Each answer may be lost; the update_times that the ledger tells are the documents'."""
    with _open(proxy.host, project) as firestore:
        first = {
            outcome.name: outcome.update_time or 0 for outcome in firestore.write(_writes(firestore, 1, count=500))
        }
        proxy.inject(
            Fault(kind=FaultKind.ERRORS, marker=b"", share=0.5, methods=("BatchWrite",), direction=Direction.RESPONSE)
        )
        changes = (
            PlannedWrite(name=name, fields=encode_fields({"v": 2}), precondition=MustExistAt(at))
            for name, at in first.items()
        )
        second = {outcome.name: outcome for outcome in firestore.write(changes, batch_count=20)}
        proxy.clear()
        assert {outcome.state for outcome in second.values()} == {WriteState.APPLIED}
        found = firestore.get(list(first))
        for name, document in found.items():
            assert document is not None
            assert document.update_time == second[name].update_time


def test_reads_that_break_half_way_find_everything(proxy: ProxyProcess, project: str) -> None:
    """Every other call of any read fails somewhere; the fingerprint is the one of fair weather."""
    with _open(proxy.host, project) as firestore:
        firestore.write(_writes(firestore, 1)).finish()
        at = firestore.server_time()
        fair = take_fingerprint(firestore, read_time=at)
        proxy.inject(Fault(kind=FaultKind.ERRORS, marker=b"u01", share=0.01, seed=7))
        proxy.inject(Fault(kind=FaultKind.ERRORS, marker=b"", every=2, direction=Direction.REQUEST))
        assert take_fingerprint(firestore, read_time=at) == fair
        names = [firestore.address.name("users", f"u{n:05d}") for n in range(0, 2000, 7)]
        assert None not in firestore.get(names, at).values()
        assert firestore.count(EVERYTHING, at) == 2000


def test_a_server_that_is_restarted_in_the_middle(tmp_path: Path, project: str) -> None:
    """Writes and a pinned scan outlast a restart: nothing lost, and still the same instant."""
    first = start_sandbox(tmp_path)
    servers = [first]

    def back_again() -> None:
        servers.append(start_sandbox(tmp_path, int(first.host.rpartition(":")[2])))

    def interrupted(firestore: Firestore) -> Iterator[PlannedWrite]:
        for n, write in enumerate(_writes(firestore, 1)):
            if n == 1000:
                first.stop()
                threading.Thread(target=back_again).start()
            yield write

    try:
        with _open(first.host, project) as firestore:
            assert firestore.write(interrupted(firestore), batch_count=50).finish().applied == 2000
            at = firestore.server_time()
            pages = firestore.pages(EVERYTHING, at)
            seen = [document.name for document in next(pages)]
            servers[-1].stop()
            servers.append(start_sandbox(tmp_path, int(first.host.rpartition(":")[2])))
            firestore.write([PlannedWrite(name=firestore.address.name("users/zzz"))]).finish()
            seen.extend(document.name for page in pages for document in page)
            assert seen == [write.name for write in _writes(firestore, 1)]
    finally:
        for server in servers:
            server.stop()


def test_a_missing_index_is_named_with_its_link(tmp_path: Path, project: str) -> None:
    """The error is a configuration's, and its hint creates the index."""
    indexes = tmp_path / "firestore.indexes.json"
    indexes.write_text(json.dumps({"indexes": []}))
    query = StructuredQuery(from_=[StructuredQuery.CollectionSelector(collection_id="reviews")])
    query.where.field_filter.field.field_path = "userId"
    query.where.field_filter.op = StructuredQuery.FieldFilter.EQUAL
    query.where.field_filter.value.CopyFrom(Value(string_value="u1"))
    query.order_by.add(direction=StructuredQuery.ASCENDING).field.field_path = "nextReviewAt"
    with (
        start_sandbox(indexes=indexes) as server,
        _open(server.host, project) as firestore,
        pytest.raises(Misconfigured) as caught,
    ):
        list(firestore.run_query(query, summary="queue_generation"))
    assert caught.value.reason is MisconfiguredReason.MISSING_INDEX
    assert "https://console.firebase.google.com/" in caught.value.hint
