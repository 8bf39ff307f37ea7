"""What a database team types to look at its database: analyze, perf, slow-queries, indexes, validate, caches warm."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.api import ApiServer, create_app
from agent.firestore import Collection, DatabaseAddress, Firestore, PlannedWrite, encode_fields
from agent.samples import Exemplar, Sample, SeriesStore, labels_of
from agent.sandbox import seed
from agent.telemetry import quiet_telemetry
from tests.api.conftest import World
from tests.cli.conftest import Configure, Run
from tests.firestore.admin_server import serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(configure: Configure, sandbox: Any, project: str) -> Path:
    """Settings for a small database that is seeded."""
    seed(sandbox.host, project, 0.002)
    return configure(database={"project": project, "host": sandbox.host})


@pytest.fixture
def firestore(config: Path, sandbox: Any, project: str) -> Iterator[Firestore]:
    del config
    with Firestore(DatabaseAddress(project=project, host=sandbox.host), telemetry=quiet_telemetry()) as found:
        yield found


def test_analyze_compares_the_database_with_the_page(run: Run, config: Path, tmp_path: Path) -> None:
    """Every collection with its share; what differs from the page; a report in the reports folder."""
    ended = run("--config", config, "analyze", "--json")
    assert ended.code == 0, ended.err
    census = json.loads(ended.out)
    assert census["full"] is False
    counted = {group["collection"]: group["documents"] for group in census["groups"]}
    assert counted["users"] == 10
    subjects = {item["subject"] for item in census["differences"]}
    assert {"documents that are migrated", "documents in users"} <= subjects
    (report,) = (tmp_path / "reports").glob("data-analysis-*.json")
    assert json.loads(report.read_text())["groups"] == census["groups"]

    whole = json.loads(run("--config", config, "analyze", "--full", "--json").out)
    assert {group["collection"]: group["documents"] for group in whole["groups"]} == counted
    words = run("--config", config, "analyze").out
    assert "sampled averages" in words
    assert "Not as on the page" in words


def test_perf_ends_with_1_where_a_target_is_missed(
    run: Run, configure: Configure, config: Path, tmp_path: Path
) -> None:
    """The same queries meet patient targets, and miss an absurd one."""
    page = (ROOT / "runbooks" / "firestore-operations.md").read_text(encoding="utf-8")
    patient = re.sub(r"<\d+ms \|", "<60s |", page)
    hasty = patient.replace("| User lookup | 45ms | <60s |", "| User lookup | 45ms | <0.001ms |")
    ended = []
    for text in (patient, hasty):
        (tmp_path / "page.md").write_text(text, encoding="utf-8")
        settings = configure(runbook=str(tmp_path / "page.md"), database=_database(config))
        ended.append(run("--config", settings, "perf", "--runs", "4", "--json"))
    good, missed = (json.loads(each.out) for each in ended)
    assert ([each.code for each in ended], good["met"], missed["met"]) == ([0, 1], True, False)
    assert [(item["query"], item["verdict"]) for item in missed["queries"]] == [
        ("user_lookup", "missed"),
        ("queue_generation", "met"),
        ("batch_updates", "met"),
        ("stats_calculation", "met"),
    ]


def test_perf_leaves_nothing_behind(run: Run, config: Path, firestore: Firestore) -> None:
    """The documents that the batch updates were measured with are gone."""
    before = {document.name for document in firestore.documents(Collection(path="sessions"))}
    assert run("--config", config, "perf", "--runs", "2").code in (0, 1), "slow or not"
    assert {document.name for document in firestore.documents(Collection(path="sessions"))} == before


def test_perf_writes_to_no_collection_that_matters(run: Run, configure: Configure, config: Path) -> None:
    """A definition that would write to users is a mistake in the settings."""
    wrong = configure(database=_database(config), queries={"batch_updates": [{"collection": "users", "write": 5}]})
    refused = run("--config", wrong, "perf")
    assert refused.code == 2
    assert "no transient collection" in refused.err


def test_indexes_are_checked_by_their_queries_on_an_emulator(run: Run, config: Path) -> None:
    """Where there is no Admin API the queries are asked, and nothing can be created."""
    ended = run("--config", config, "indexes", "check", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert [item["state"] for item in found["indexes"]] == ["answered", "answered"]
    refused = run("--config", config, "indexes", "apply", "--yes")
    assert refused.code == 1
    assert "no Admin API" in refused.err


def test_missing_indexes_are_created_once_somebody_said_yes(run: Run, configure: Configure) -> None:
    """A dry run and an unanswered question create nothing; --yes creates each index of the page that is missing."""
    with serving() as admin:
        config = configure(database={"project": "p", "host": admin.host})
        dry = run("--config", config, "indexes", "apply", "--dry-run")
        asked = run("--config", config, "indexes", "apply")
        assert (dry.code, asked.code) == (0, 3)
        assert "missing: reviews" in dry.out
        assert {method for method, _, _ in admin.requests} == {"ListIndexes"}

        applied = run("--config", config, "indexes", "apply", "--yes", "--json")

        assert applied.code == 0, applied.err
        created = [request.parent for method, request, _ in admin.requests if method == "CreateIndex"]
    assert [parent.rpartition("/")[2] for parent in created] == ["reviews", "review_items"]
    assert all(item["operation"].endswith("/operations/op1") for item in json.loads(applied.out)["created"])


def test_caches_are_warmed_by_reading(run: Run, config: Path) -> None:
    """Each reading query of the page is asked once."""
    warmed = {
        item["query"]: item for item in json.loads(run("--config", config, "caches", "warm", "--json").out)["queries"]
    }
    assert warmed["user_lookup"]["documents"] == 2
    assert warmed["batch_updates"]["requests"] == 0


@pytest.mark.timeout(240)
def test_a_damaged_document_is_found_after_the_migration(run: Run, config: Path, firestore: Firestore) -> None:
    """Validation passes after a good run, ends with 1 once a document is wrong, and names it."""
    assert run("--config", config, "backup", "create", "--type", "full").code == 0
    ran = run("--config", config, "migrate", "run", "0001_schema_version", "--json")
    assert ran.code == 0, ran.err
    identity = json.loads(ran.out)["record"]["id"]
    good = run("--config", config, "migrate", "validate", identity, "--json")
    assert good.code == 0, good.err
    assert json.loads(good.out)["passed"] is True
    assert run("--config", config, "validate-collection", "users").code == 0

    victim = firestore.head(Collection(path="users"), 1)[0].name
    firestore.write([PlannedWrite(name=victim, fields=encode_fields({"displayName": "gone"}))]).finish()

    bad = run("--config", config, "validate-collection", "users")
    assert bad.code == 1
    assert firestore.address.relative(victim) in bad.err
    assert run("--config", config, "migrate", "validate", "0001", "--collection", "lessons").code == 0
    assert run("--config", config, "migrate", "validate", "0001").code == 1


def test_slow_queries_come_from_the_running_daemon(run: Run, config: Path, tmp_path: Path) -> None:
    """Slowest first beside their targets, with the trace of a slow one."""
    with _daemon(tmp_path) as (store, url):
        _minute_of_traffic(store)
        ended = run("--config", config, "slow-queries", "--url", url, "--window", "1 min", "--json")
        assert ended.code == 0, ended.err
        words = run("--config", config, "slow-queries", "--url", url).out
    slow, fast = json.loads(ended.out)["queries"]
    assert (slow["query"], slow["target"], slow["over"], slow["trace_id"]) == (
        "user_lookup",
        0.05,
        True,
        TRACE,
    )
    assert slow["rate"] == pytest.approx(1.0, abs=0.05)
    assert (fast["query"], fast["over"]) == ("stats_calculation", False)
    assert TRACE in words


def test_slow_queries_without_a_daemon_say_what_to_do(run: Run, config: Path) -> None:
    """Nobody answers: start it, or say where it is."""
    ended = run("--config", config, "slow-queries", "--url", "http://127.0.0.1:1")
    assert ended.code == 1
    assert "runbookd run" in ended.err


def _database(config: Path) -> Any:
    return yaml.safe_load(config.read_text(encoding="utf-8"))["database"]


@contextmanager
def _daemon(folder: Path) -> Iterator[tuple[SeriesStore, str]]:
    """The API of a daemon that has just started, on a port of its own."""
    world = World(folder)
    server = ApiServer(create_app(world.sources), host="127.0.0.1", port=0)
    server.start()
    try:
        yield world.store, server.url
    finally:
        server.stop()
        world.close()


def _minute_of_traffic(store: SeriesStore) -> None:
    """Two queries, once a second each: lookups between 50 and 500 ms, statistics below 50."""
    name = "db_client_operation_duration_seconds"
    now = datetime.now(UTC).timestamp()
    trace = Exemplar(trace_id=TRACE, value=0.4, timestamp=now - 1)
    for second in range(61):
        samples = []
        for query, below in (("user_lookup", 0), ("stats_calculation", second)):
            labels = {"db_query_summary": query, "db_operation_name": "RunQuery"}
            for le, count in (("0.05", below), ("0.5", second), ("+Inf", second)):
                exemplar = trace if (query, le) == ("user_lookup", "0.5") else None
                samples.append(Sample(labels_of(f"{name}_bucket", {**labels, "le": le}), float(count), exemplar))
            samples.append(Sample(labels_of(f"{name}_count", labels), float(second)))
        store.ingest("application", now - 60 + second, samples)
