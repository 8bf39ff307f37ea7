"""The page's queries, asked on purpose: timed, judged, cleaned up after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import SystemClock
from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore import NO_RETRY, Collection, DatabaseAddress, Firestore, PlannedWrite, encode_fields
from agent.runbook import QueryTarget
from agent.sandbox import seed, start_sandbox
from agent.settings import QueryFilter, QueryRequest, Settings
from agent.signals import PageQueries, Verdict
from agent.signals.queries import percentile
from agent.telemetry import Telemetry, quiet_telemetry


class Host(Protocol):
    host: str


def _target(query: str, seconds: float = 30.0) -> QueryTarget:
    return QueryTarget(query=query, title=query, current=0.1, target=seconds)


@pytest.fixture
def telemetry() -> Telemetry:
    return quiet_telemetry()


@pytest.fixture
def firestore(sandbox: Host, project: str, telemetry: Telemetry) -> Iterator[Firestore]:
    address = DatabaseAddress(project=project, host=sandbox.host)
    with Firestore(address, telemetry=telemetry, origin="perf", retry=NO_RETRY) as found:
        yield found


@pytest.fixture
def seeded(firestore: Firestore) -> Firestore:
    assert firestore.address.host is not None
    seed(firestore.address.host, firestore.address.project, 0.002)
    return firestore


def _queries(firestore: Firestore, **definitions: Any) -> PageQueries:
    chosen = definitions or Settings().queries
    return PageQueries(firestore, chosen, transient=("sessions",), clock=SystemClock())


@pytest.mark.parametrize("query", ["user_lookup", "queue_generation", "batch_updates", "stats_calculation"])
def test_the_first_users_queries_are_measured_as_they_are(seeded: Firestore, query: str) -> None:
    """The default definitions fit the first user's data: every run succeeds."""
    timing = _queries(seeded).measure(_target(query), runs=6)
    assert (timing.verdict, timing.runs, timing.failures, timing.problem) == (Verdict.MET, 6, 0, "")
    assert timing.p50 is not None
    assert timing.p95 is not None
    assert 0 < timing.p50 <= timing.p95


def test_a_query_over_its_target_misses_it(seeded: Firestore) -> None:
    """The p95 of the runs is judged, not the best of them."""
    assert _queries(seeded).measure(_target("user_lookup", 1e-9), runs=3).verdict is Verdict.MISSED


def test_the_metrics_see_the_queries_by_name(seeded: Firestore, telemetry: Telemetry) -> None:
    """Each query of the page is a db.query.summary, the write included; looking for sample values is not."""
    queries = _queries(seeded)
    for query in Settings().queries:
        queries.measure(_target(query), runs=2)
    summaries = {
        (sample.labels["db_query_summary"], sample.labels["db_operation_name"])
        for family in telemetry.families()
        for sample in family.samples
        if sample.name == "db_client_operation_duration_seconds_count" and "db_query_summary" in sample.labels
    }
    assert summaries == {
        ("user_lookup", "BatchGetDocuments"),
        ("queue_generation", "RunQuery"),
        ("batch_updates", "BatchWrite"),
        ("stats_calculation", "RunQuery"),
    }


def test_what_was_written_is_deleted_and_nothing_else(seeded: Firestore) -> None:
    """The measured writes leave the transient collection as it was."""
    before = {document.name: document.raw for document in seeded.documents(Collection(path="sessions"))}
    _queries(seeded).measure(_target("batch_updates"), runs=3)
    assert {document.name: document.raw for document in seeded.documents(Collection(path="sessions"))} == before


def test_only_transient_collections_are_written_to(firestore: Firestore) -> None:
    """A definition that would write to users' data is refused before anything is asked."""
    with pytest.raises(Misconfigured) as refused:
        _queries(firestore, batch_updates=(QueryRequest(collection="users", write=5),))
    assert refused.value.reason is MisconfiguredReason.SETTINGS
    assert "sessions" in refused.value.hint


def test_an_empty_collection_is_no_verdict(firestore: Firestore) -> None:
    """What can't be asked has not met its target."""
    timing = _queries(firestore).measure(_target("user_lookup"), runs=3)
    assert (timing.verdict, timing.runs, timing.p95) == (Verdict.NO_DATA, 0, None)
    assert "users" in timing.problem


def test_a_query_that_nobody_defined_is_no_verdict(firestore: Firestore) -> None:
    """A row of the page without a definition names the setting that is missing."""
    timing = _queries(firestore).measure(_target("search"), runs=3)
    assert timing.verdict is Verdict.NO_DATA
    assert "queries.search" in timing.problem


def test_a_missing_index_fails_the_query_and_says_so(tmp_path: Path, project: str) -> None:
    """A query that the database refuses has failed, with the reason in its words."""
    file = tmp_path / "indexes.json"
    file.write_text('{"indexes": []}', encoding="utf-8")
    with start_sandbox(indexes=file) as server:
        seed(server.host, project, 0.001)
        address = DatabaseAddress(project=project, host=server.host)
        with Firestore(address, telemetry=quiet_telemetry(), retry=NO_RETRY) as firestore:
            timing = _queries(firestore).measure(_target("queue_generation"), runs=4)
    assert timing.verdict is Verdict.FAILED
    assert "index" in timing.problem


def test_values_are_given_or_taken_from_documents(firestore: Firestore) -> None:
    """Given values are asked for in turn; others come from documents that have them, wherever in the map they are."""
    address = firestore.address
    documents: dict[str, dict[str, Any]] = {
        "things/a": {"owner": {"id": "u1"}, "kind": "x"},
        "things/b": {"owner": {"id": "u2"}, "kind": "y"},
        "things/c": {"kind": "x"},
    }
    firestore.write(
        [PlannedWrite(name=address.name(path), fields=encode_fields(fields)) for path, fields in documents.items()]
    ).finish()
    nested = QueryRequest(collection="things", filters=(QueryFilter(field="owner.id"),))
    chosen = QueryRequest(collection="things", filters=(QueryFilter(field="kind", values=("x",)),))
    by_id = QueryRequest(collection="things", filters=(QueryFilter(field="__name__", values=("b",)),))
    several = QueryRequest(
        collection="things", filters=(QueryFilter(field="kind", comparison="in", values=("x", "y")),)
    )
    queries = _queries(firestore, nested=(nested,), chosen=(chosen,), by_id=(by_id,), several=(several,))
    found = {name: queries.warm(name).documents for name in ("nested", "chosen", "by_id", "several")}
    assert found == {"nested": 1, "chosen": 2, "by_id": 1, "several": 3}


def test_warming_reads_and_never_writes(seeded: Firestore) -> None:
    """Each reading request is asked once; a query that only writes is left alone."""
    queries = _queries(seeded)
    assert queries.warm("queue_generation").requests == 2
    assert queries.warm("queue_generation").documents > 0
    warmed = queries.warm("batch_updates")
    assert (warmed.requests, warmed.documents) == (0, 0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_enough_others_do_not_exceed(values: list[float], share: float) -> None:
    """Nearest rank: one of the values, at least ``share`` of them not above it, and no smaller one would do."""
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)
