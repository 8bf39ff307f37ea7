"""The application's process, in front of a small database of the first user's shape."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest

from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore.address import DatabaseAddress
from agent.firestore.maintenance import PATH
from agent.firestore.protos import (
    SERVICE,
    BatchGetDocumentsRequest,
    CommitRequest,
    CommitResponse,
    Document,
    RunQueryRequest,
    Value,
)
from agent.sandbox.companions import ApplicationProcess, ProxyProcess, start_application, start_proxy
from agent.sandbox.injection import Fault, FaultKind
from agent.sandbox.traffic import BATCH_SIZE, Operation, Traffic
from agent.sandbox.vocabulary import STATUSES

USERS = 10
COLLECTIONS = ("users", "lessons", "reviews", "review_items", "progress")
QUERIES = {"user_lookup", "queue_generation", "batch_updates", "stats_calculation"}


class Database:
    """The little that these tests write to a Firestore."""

    def __init__(self, host: str, project: str) -> None:
        self.address = DatabaseAddress(project=project, host=host)

    def commit(self, *documents: Any) -> None:
        request = CommitRequest(database=self.address.root, writes=[{"update": d} for d in documents])
        with grpc.insecure_channel(self.address.target) as channel:
            stub: Any = channel.unary_unary(
                f"/{SERVICE}/Commit", CommitRequest.SerializeToString, CommitResponse.FromString
            )
            stub(request, timeout=20)

    def document(self, path: str, **fields: Any) -> Any:
        return Document(name=self.address.name(path), fields=fields)

    def fill(self, *, migrated: tuple[str, ...] = ()) -> None:
        """Ten users with what belongs to them; documents of the ``migrated`` collections carry the marker."""
        for collection in COLLECTIONS:
            marker = {"schemaVersion": Value(integer_value=2)} if collection in migrated else {}
            self.commit(
                *(
                    self.document(
                        f"{collection}/u{user:03}",
                        userId=Value(string_value=f"u{user:03}"),
                        status=Value(string_value=STATUSES[user % len(STATUSES)]),
                        nextReviewAt=Value(timestamp_value={"seconds": user}),
                        lastReviewedAt=Value(timestamp_value={"seconds": user}),
                        **marker,
                    )
                    for user in range(USERS)
                )
            )

    def maintenance(self, *, enabled: bool) -> None:
        self.commit(self.document(PATH, enabled=Value(boolean_value=enabled)))


@pytest.fixture
def database(backend: Any, project: str) -> Database:
    database = Database(backend.host, project)
    database.fill()
    return database


@pytest.fixture
def proxy(backend: Any) -> Iterator[ProxyProcess]:
    with start_proxy(backend.host) as process:
        yield process


@pytest.fixture
def application(database: Database, proxy: ProxyProcess) -> Iterator[ApplicationProcess]:
    # What a Firestore on a busy machine of two cores answers with ease: "nothing fails" is about us, not about load.
    with start_application(proxy.host, database.address.project, rate=30, seed=1) as process:
        yield process


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def total(application: ApplicationProcess) -> int:
    return sum(application.stats().operations.values())


def failures(application: ApplicationProcess) -> str:
    """Its metrics' lines about failed operations, with their reasons."""
    text = httpx.get(application.metrics_url, trust_env=False).text
    return "\n".join(line for line in text.splitlines() if "_count{" in line and "error_type" in line)


def failed(application: ApplicationProcess) -> int:
    return sum(application.stats().errors.values())


def test_it_asks_the_four_queries_and_nothing_fails(application: ApplicationProcess) -> None:
    """Against either Firestore, through the proxy: every query of the page is asked, and the error rate is 0."""
    assert eventually(lambda: total(application) > 150)
    stats = application.stats()
    assert set(stats.operations) == QUERIES
    assert stats.errors == {}, failures(application)
    assert httpx.get(application.health_url, trust_env=False).json() == {"status": "ok"}


def test_its_metrics_carry_the_catalogues_names_and_an_exemplar(application: ApplicationProcess) -> None:
    """OpenMetrics with the histogram's labels, the written documents by origin, and a trace id to click on."""
    assert eventually(lambda: set(application.stats().operations) >= QUERIES)
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    text = httpx.get(application.metrics_url, headers=accept, trust_env=False).text
    lookup = next(line for line in text.splitlines() if "_count" in line and 'db_query_summary="user_lookup"' in line)
    assert 'db_system_name="gcp.firestore"' in lookup
    assert 'db_operation_name="BatchGetDocuments"' in lookup
    assert "error_type" not in lookup
    assert "db_client_operation_duration_seconds_bucket{" in text
    assert re.search(r'# \{[^}]*trace_id="[0-9a-f]{32}"', text)
    assert 'firestore_documents_written_total{origin="application"}' in text
    plain = httpx.get(application.metrics_url, trust_env=False)
    assert plain.headers["Content-Type"].startswith("text/plain")


def test_errors_are_visible_by_their_reason(application: ApplicationProcess, proxy: ProxyProcess) -> None:
    """One attempt an operation: what the database refuses shows as error_type, and the health check turns red."""
    proxy.inject(Fault(kind=FaultKind.ERRORS, marker=b"", share=1.0, methods=("BatchGetDocuments",)))
    assert eventually(lambda: application.stats().errors.get("user_lookup", 0) > 0)
    text = httpx.get(application.metrics_url, trust_env=False).text
    assert 'error_type="unavailable"' in text
    assert httpx.get(application.health_url, trust_env=False).status_code == 503
    assert set(application.stats().errors) == {"user_lookup"}


def test_a_release_that_cannot_read_migrated_documents_shows(
    application: ApplicationProcess, database: Database, proxy: ProxyProcess
) -> None:
    """The causal fault end to end: a good share of operations fails once documents are migrated, none after the
    undo."""
    proxy.inject(Fault(kind=FaultKind.ERRORS, share=1.0))
    database.fill(migrated=("reviews",))
    before, failed_before = total(application), failed(application)
    assert eventually(lambda: total(application) - before > 100)
    assert (failed(application) - failed_before) / (total(application) - before) > 0.05
    database.fill()

    def healed() -> bool:
        """Fifty operations without a failure: answers that were read before the undo come in on their own time."""
        after, failed_after = total(application), failed(application)
        assert eventually(lambda: total(application) - after > 50)
        return failed(application) == failed_after

    assert eventually(healed)


def test_it_stops_in_maintenance_and_comes_back(application: ApplicationProcess, database: Database) -> None:
    """While the flag is enabled no operation is sent, the time is counted, and the health check says so."""
    assert eventually(lambda: total(application) > 0)
    database.maintenance(enabled=True)
    assert eventually(lambda: application.stats().in_maintenance)
    assert httpx.get(application.health_url, trust_env=False).json() == {"status": "maintenance"}
    assert eventually(lambda: application.stats().under_way == 0)
    stopped = total(application)
    time.sleep(0.3)
    assert total(application) == stopped
    database.maintenance(enabled=False)
    # The health check doesn't answer from memory: it reads the flag again and looks a user up.
    assert httpx.get(application.health_url, trust_env=False).json() == {"status": "ok"}
    assert eventually(lambda: total(application) > stopped + 1)
    stats = application.stats()
    assert stats.paused_seconds > 0.3
    assert stats.errors == {}, failures(application)


def test_an_empty_project_is_a_wrong_address(backend: Any, project: str) -> None:
    """Traffic that finds nobody would be green for ever; it refuses to start instead."""
    with pytest.raises(Misconfigured) as caught:
        start_application(backend.host, project)
    assert caught.value.reason is MisconfiguredReason.ADDRESS
    assert "has no users" in str(caught.value)


def test_no_database_at_the_address() -> None:
    """The error names the address."""
    with pytest.raises(Misconfigured, match=r"127\.0\.0\.1:1"):
        start_application("127.0.0.1:1", "nobody")


def collections_read(operation: Operation) -> set[str]:
    if operation.rpc == "BatchGetDocuments":
        names = BatchGetDocumentsRequest.FromString(operation.request).documents
        return {name.split("/")[5] for name in names}
    if operation.rpc == "RunQuery":
        query = RunQueryRequest.FromString(operation.request).structured_query
        return {query.from_[0].collection_id}
    return set()


def traffic(seed: int = 0) -> Iterator[Operation]:
    mix = Traffic(DatabaseAddress(project="p"), users=["u1", "u2"], lessons=["l1"], seed=seed)
    return (mix.next() for _ in range(1000))


def test_every_collection_is_read_often_enough_to_be_missed() -> None:
    """At least 12 % of the operations read each collection: a fault in 60 % of those is more than 5 % of all."""
    reads = Counter(collection for operation in traffic() for collection in collections_read(operation))
    assert set(reads) == set(COLLECTIONS)
    assert min(reads.values()) >= 120


def test_the_mix_repeats_with_its_seed() -> None:
    """Reads are the same, byte for byte; writes carry the time."""

    def reads(seed: int) -> list[bytes]:
        return [operation.request for operation in traffic(seed) if not operation.written]

    assert reads(3) == reads(3)
    assert reads(3) != reads(4)


def test_it_writes_sessions_only() -> None:
    """Every write goes to the collection that no migration and no fingerprint looks at."""
    commits = [operation for operation in traffic() if operation.rpc == "Commit"]
    names = {w.update.name.split("/")[5] for o in commits for w in CommitRequest.FromString(o.request).writes}
    assert names == {"sessions"}
    assert {operation.written for operation in commits} == {BATCH_SIZE}
